// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// The maps of a kubeconfig as tables of keys.

#include "kubeconfig_priv.h"
#include "tree_priv.h"

#define KUBECONFIG_PATH_MAX 256

// A map of the file, and what it is called in messages.
struct kubeconfig_place {
	const struct tree *node; // NULL: not there
	char path[KUBECONFIG_PATH_MAX];
};

struct kubeconfig_reader {
	struct tree *root;
	struct kubeconfig *out;
	struct error *err;
	struct error *warnings;
	struct kubeconfig_place cluster;
	struct kubeconfig_place user;
	const char *server; // as written
	bool is_loopback;   // of the server
	bool is_out_of_memory;
};

struct kubeconfig_row {
	const char *name; // NULL: end
	// Takes the value into `record`; says what is wrong itself.
	void (*take)(struct kubeconfig_reader *r, const struct tree *node, const char *path,
		void *field);
	size_t offset; // of the field in the record; for takers of the whole record 0
};

extern const struct kubeconfig_row kubeconfig_context_rows[];
extern const struct kubeconfig_row kubeconfig_cluster_rows[];
extern const struct kubeconfig_row kubeconfig_user_rows[];

// Every key of the map by its row; unknown ones are warned of.
void kubeconfig_decode_map(struct kubeconfig_reader *r, const struct tree *map, const char *path,
	const struct kubeconfig_row *rows, void *record);
void kubeconfig_warn_unknown(struct kubeconfig_reader *r, const struct tree *map, const char *path,
	const char *const *keys);
// Takes a server URL apart into r->out, or says what is allowed.
void kubeconfig_take_server(struct kubeconfig_reader *r, const char *url);

void kubeconfig_refuse(struct kubeconfig_reader *r, const struct tree *node, const char *path,
	const char *fmt, ...) __attribute__((format(printf, 4, 5)));
// The same for a key of the map `node`: at the key's line where it is there.
void kubeconfig_refuse_under(struct kubeconfig_reader *r, const struct tree *node, const char *path,
	const char *key, const char *fmt, ...) __attribute__((format(printf, 5, 6)));
void kubeconfig_warn_under(struct kubeconfig_reader *r, const struct tree *node, const char *path,
	const char *key, const char *fmt, ...) __attribute__((format(printf, 5, 6)));
