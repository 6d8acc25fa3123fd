// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "kube_encode.h"

#define KUBE_TARGET_MAX 2048

// Names come from objects; in a path they are one segment, whatever they hold. buf >= 3 * strlen + 1, else cut.
const char *kube_segment(const char *name, char *buf, size_t len);
// At most len - 1 bytes of valid UTF-8 in one line: cut between characters, what is no character becomes '?'.
const char *kube_clean(const char *text, char *buf, size_t len);
// Takes the body. 0 or -ENOMEM.
int kube_write_make(struct kube_write *out, const char *method, const char *content_type,
	const char *target, json_t *body);
