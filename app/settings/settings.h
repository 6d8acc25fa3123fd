// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// The configuration (interfaces.md section 4), decoded: sizes in bytes, times in nanoseconds, words as enums,
// addresses parsed. One table (settings_table.c) drives the parser, the checks, the sample file, the JSON
// and the reload diff. Not here: what a value means to the machine (preflight), and opening the files it names.
//
// Plain values without pointers: a struct settings is copied by assignment. It is about 150 KiB, so keep it
// static or on the heap. Any thread, no globals.

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base.h"
#include "net.h"

#define SETTINGS_PORTS_MAX    32
#define SETTINGS_SNAT_MAX     256
#define SETTINGS_LISTEN_MAX   8
#define SETTINGS_EAL_ARGS_MAX 16
#define SETTINGS_POOLS_MAX    32
#define SETTINGS_RANGES_MAX   16         // of a pool
#define SETTINGS_SPACES_MAX   16         // namespaces that a pool is for
#define SETTINGS_PATH_MAX     256        // with NUL
#define SETTINGS_FILE_MAX     (1u << 20) // bytes of a configuration file

struct settings_port {
	char name[16];        // unique, fit for an interface name
	char device[256];     // "0000:3b:00.0", "net_af_packet0,iface=veth0", "ifname:ens1f0"
	uint32_t queues;      // 0 = "auto"
	uint32_t descriptors; // 0 = "auto"
	uint32_t mtu;         // 576..9600
	uint32_t vlan;        // 0 = untagged, else 1..4094
	char twin[16];        // never empty: the port's name where none is given
};

enum settings_idle { SETTINGS_IDLE_POLL, SETTINGS_IDLE_ADAPTIVE, SETTINGS_IDLE_SLEEP };
struct settings_workers {
	char cores[128];       // "auto" or a list "2-5,8", checked
	char control_core[16]; // "auto" or a number
	char idle_text[32];    // as written
	enum settings_idle idle;
	uint64_t sleep_ns; // of "sleep:<time>", else 0
};

enum settings_hugepages { SETTINGS_HUGEPAGES_AUTO, SETTINGS_HUGEPAGES_ON, SETTINGS_HUGEPAGES_OFF };
struct settings_memory {
	uint64_t size_bytes; // 0 = "auto"
	enum settings_hugepages hugepages;
	char eal_args[SETTINGS_EAL_ARGS_MAX][128]; // one word each, appended to EAL's own last
	uint32_t n_eal_args;
};

enum settings_flow_file {
	SETTINGS_FLOW_FILE_AUTO,
	SETTINGS_FLOW_FILE_NONE,
	SETTINGS_FLOW_FILE_PATH
};
struct settings_flows {
	uint32_t capacity;            // per worker
	char file[SETTINGS_PATH_MAX]; // as written: "auto", "none" or an absolute path
	enum settings_flow_file file_kind;
};

struct settings_snat {
	struct address addresses[SETTINGS_SNAT_MAX];
	uint32_t n_addresses;
	char ports_text[16]; // as written
	uint16_t port_min;
	uint16_t port_max; // inclusive
};

struct settings_services {
	char file[SETTINGS_PATH_MAX]; // "" = no services file
	char mode[16];                // a word that service_mode_parse takes
	uint64_t tcp_idle_ns;         // whole seconds, as are the next two
	uint64_t udp_idle_ns;
	uint64_t drain_timeout_ns;
};

struct settings_health {
	uint64_t interval_ns; // whole milliseconds
	uint64_t timeout_ns;  // <= interval
	uint32_t rise;
	uint32_t fall;
};

struct settings_listen {
	char address_text[ADDRESS_TEXT_LEN];
	struct address address; // loopback only, as long as there is no TLS
	uint32_t port;
	char tokens_file[SETTINGS_PATH_MAX]; // never empty
	char tls_cert[SETTINGS_PATH_MAX];    // the TLS keys are refused for now
	char tls_key[SETTINGS_PATH_MAX];
	char client_ca[SETTINGS_PATH_MAX];
};

struct settings_admin {
	char socket[108]; // fits sun_path; "" = no UNIX socket
	struct settings_listen listen[SETTINGS_LISTEN_MAX];
	uint32_t n_listen;
};

// "192.0.2.0/28", "192.0.2.10-192.0.2.20" or one address.
struct settings_range {
	char text[96]; // as written
	struct address first;
	struct address last; // same family, not below first
};
struct settings_pool {
	char name[64]; // unique
	struct settings_range ranges[SETTINGS_RANGES_MAX];
	uint32_t n_ranges; // at least 1
	uint32_t priority; // smaller goes first
	bool auto_assign;  // also for Services that do not name it
	char namespaces[SETTINGS_SPACES_MAX][64];
	uint32_t n_namespaces; // 0 = for all
};

struct settings_kubernetes {
	bool enabled;
	char kubeconfig[SETTINGS_PATH_MAX]; // "" = from inside the cluster
	char class[128];                    // loadBalancerClass
	bool default_class;                 // Services without a class too
	char zone[64];                      // "" = zone hints are not heeded
	char namespace[64];                 // of the Leases
	char node_name[64];                 // "auto" = the host's name
	char finalizer[128];                // "" = none
	bool readiness_gate;                // of pods: followed and written
	uint64_t lease_duration_ns;         // whole seconds
	uint64_t lease_renew_ns;            // < duration
	uint64_t lease_retry_ns;            // 1.2 x retry < renew
	struct settings_pool pools[SETTINGS_POOLS_MAX];
	uint32_t n_pools;
};

struct settings_log {
	enum log_level level;
	enum log_format format;
};

struct settings {
	struct settings_port ports[SETTINGS_PORTS_MAX];
	uint32_t n_ports;
	struct settings_workers workers;
	struct settings_memory memory;
	struct settings_flows flows;
	struct settings_snat snat;
	struct settings_services services;
	struct settings_health health;
	struct settings_admin admin;
	struct settings_kubernetes kubernetes;
	uint32_t punt_rate; // packets a second to the twins, over all workers
	struct settings_log log;
	char state_dir[SETTINGS_PATH_MAX]; // absolute; "" = nothing is kept
};

// The built-in defaults: no ports, no SNAT addresses, no listen entry; a services file and a socket.
void settings_defaults(struct settings *out);

// Reads and decodes a whole file over the defaults. Every finding is added to err with file, line, key path, value and what is
// allowed; a near miss of a key gets a suggestion. 0; -EINVAL; the errno of opening or reading. *out untouched on failure.
// No file named in the settings is opened, no device looked for.
int settings_load(const char *path, struct settings *out, struct error *err);
// The same from memory; text need not be NUL-terminated. file_name is for messages only.
int settings_load_text(const char *text, size_t len, const char *file_name, struct settings *out,
	struct error *err);
// What a daemon needs and a replay does not: at least one port, a SNAT address for mode fullnat, a way in for the
// operator. `sluiced --check` and start-up call it after settings_load. 0 or -EINVAL.
int settings_check_daemon(const struct settings *settings, struct error *err);
// Frees nothing today; call it all the same.
void settings_fini(struct settings *settings);

// The sample file: every key with its help, type, unit, range, default and whether a reload takes it (live) or a restart is
// needed. config/sluice.conf is this output. It loads, and passes settings_check_daemon.
void settings_print_default(FILE *file);
// The effective configuration in the same form, without the comments.
void settings_print(const struct settings *settings, FILE *file);
// The same as JSON, one object per group. New reference, NULL: out of memory.
json_t *settings_to_json(const struct settings *settings);

// One call per key whose value differs: path "ports[0].mtu", both values as text. live: takes effect on reload, else
// after a restart.
struct settings_change {
	const char *path;
	const char *old_text;
	const char *new_text;
	bool live;
};
// Returns the number of changed keys; fn may be NULL.
uint32_t settings_diff(const struct settings *old_settings, const struct settings *new_settings,
	void (*fn)(void *arg, const struct settings_change *change), void *arg);
