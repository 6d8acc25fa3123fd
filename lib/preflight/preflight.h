// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Is this machine fit to run sluice with this configuration? Checks over a root folder of sysfs and
// procfs, before the EAL is started (it can be started once only, and takes a missing device for a
// success). `sluiced` at start and `sluicectl doctor` run the same code; a test gives it a tree of
// its own.
//
// Nothing is changed: every finding names its object, the cause and the exact command that would
// cure it. The checks are pure (files below `root` only). What no file tells comes in through the
// input; preflight_gather fills that part in for the machine it runs on and is the only function
// here that opens a socket.
//
// Any thread; no state between calls; a run reads a few hundred small files (about 5 ms), more when
// it looks for the process that holds huge pages or the socket.

#include <stdbool.h>
#include <stdint.h>

#include "base.h"
#include "net.h"

#define PREFLIGHT_PORTS_MAX     32
#define PREFLIGHT_ADDRESSES_MAX 256

enum preflight_severity { PREFLIGHT_OK, PREFLIGHT_WARN, PREFLIGHT_ERROR };
enum preflight_known { PREFLIGHT_UNKNOWN, PREFLIGHT_NO, PREFLIGHT_YES };

struct preflight_port {
	char name[32];    // "p0"
	char device[256]; // "0000:3b:00.0", "net_af_packet0,iface=veth0", "ifname:ens1f0"
	char twin[16];    // "" = name
	uint16_t mtu;     // 0 = 1500
	// gathered
	enum preflight_known ingress_drop; // an nft ingress chain with policy drop on its netdev
	enum preflight_known
		peer_tx_checksum; // the far end of its veth leaves checksums to an offload
	char peer[16];            // name of that far end, "" = not seen
	char peer_namespace[64];  // named namespace it lives in, "" = this one
};

struct preflight_host_address {
	char ifname[16];
	struct address address;
	uint8_t prefix_len;
};

// Zero-initialised is valid: this machine, no ports, unprivileged.
struct preflight_input {
	const char *root; // NULL or "": this machine; else a folder with sys/, proc/, dev/, usr/
	bool starting;    // true: sluiced is about to start, so that a running one is an error
	const struct preflight_port *ports;
	uint32_t n_ports;         // at most PREFLIGHT_PORTS_MAX are looked at
	const char *cores;        // "auto" (or NULL) or a list "2-5,8"
	const char *control_core; // "auto" (or NULL) or a number
	uint64_t memory_bytes;    // packets and tables; 0 = auto (asks for the least that runs)
	bool hugepages;           // wanted where the machine has them
	bool hugepages_required;  // without them it will not start
	bool hugetlbfs_required; // a mounted hugetlbfs is needed (flow files, other DPDK processes)
	const struct address *snat;
	uint32_t n_snat;
	uint16_t snat_first_port; // 0 and 0 = 1024-65535
	uint16_t snat_last_port;
	const char *socket_path; // admin socket; NULL or "": not looked at
	// gathered
	uint32_t uid;
	uint64_t capabilities; // effective set, bit n = capability n
	int32_t running_pid;   // of the sluiced that answers on socket_path; 0 = none answers
	char ssh_client[ADDRESS_TEXT_LEN]; // address of the far end of this ssh session; "" = none
	const struct preflight_host_address *addresses;
	uint32_t n_addresses;
};

struct preflight_finding {
	const char *id; // "E_HUGE_SHORT": a row of preflight_checks
	enum preflight_severity severity;
	char object[128];  // "port p0 (0000:3b:00.0)"
	char cause[512];   // one line
	char command[512]; // cures it; "" when there is nothing to cure
};

// Zero-initialised is valid and empty; end with preflight_report_fini.
struct preflight_report {
	struct preflight_finding *items; // in the order of preflight_checks
	uint32_t n_items;
	uint32_t cap;
	uint32_t n_ok;
	uint32_t n_warn;
	uint32_t n_error;
};

// The list of checks: id, and what it looks at in one line.
struct preflight_run;
struct preflight_check {
	const char *id;
	const char *what;
	void (*run)(struct preflight_run *run);
};
extern const struct preflight_check preflight_checks[];
extern const uint32_t preflight_n_checks;

// Runs every check. Each leaves at least one finding, PREFLIGHT_OK where all is well. 0, or -ENOMEM
// (the report then holds what was found so far).
int preflight_run(const struct preflight_input *input, struct preflight_report *out);
void preflight_report_fini(struct preflight_report *report);
const char *preflight_severity_name(enum preflight_severity severity); // "ok" "warn" "error"
// "E_CORE worker cores: core 64 not in 0-1; try: ..." into buf; returns buf.
const char *preflight_format(const struct preflight_finding *finding, char *buf, size_t len);

// Fills the gathered part of `input` and of its ports for the machine and namespace the caller runs
// in: uid, capabilities, host addresses, who answers on the socket, nft ingress chains, offloads of
// veth peers (also in named namespaces: asked by a short-lived child, so call it before threads are
// made). What cannot be learnt stays unknown. `ports` must be the array that input->ports points
// to; `addresses` has room for PREFLIGHT_ADDRESSES_MAX.
void preflight_gather(struct preflight_input *input, struct preflight_port *ports,
	struct preflight_host_address *addresses);
