// SPDX-License-Identifier: BSD-3-Clause
// Enum values and their words (interfaces: annotations and REST body). A value out of range reads "unknown".
#include "service.h"

#include <errno.h>
#include <string.h>

static const char *const owner_names[] = {
	[SERVICE_OWNER_KUBERNETES] = "kubernetes",
	[SERVICE_OWNER_FILE] = "file",
	[SERVICE_OWNER_API] = "api",
};
static const char *const mode_names[] = {
	[SERVICE_MODE_FULLNAT] = "fullnat",
	[SERVICE_MODE_DNAT] = "dnat",
	[SERVICE_MODE_IPIP] = "ipip",
	[SERVICE_MODE_GUE] = "gue",
	[SERVICE_MODE_L2DSR] = "l2dsr",
};
static const char *const scheduler_names[] = {
	[SERVICE_MAGLEV] = "maglev",
	[SERVICE_LEAST_CONNECTIONS] = "least-connections",
};
static const char *const client_address_names[] = {
	[SERVICE_CLIENT_NONE] = "none",
	[SERVICE_CLIENT_TOA] = "toa",
	[SERVICE_CLIENT_PROXY_V2] = "proxy-v2",
};
static const char *const check_names[] = {
	[SERVICE_CHECK_TCP] = "tcp",
	[SERVICE_CHECK_HTTP] = "http",
	[SERVICE_CHECK_HTTPS] = "https",
	[SERVICE_CHECK_GRPC] = "grpc",
	[SERVICE_CHECK_UDP] = "udp",
	[SERVICE_CHECK_ICMP] = "icmp",
	[SERVICE_CHECK_NONE] = "none",
};
static const struct {
	const char *name;
	uint8_t protocol;
} protocols[] = {
	{ "TCP", NET_PROTO_TCP },
	{ "UDP", NET_PROTO_UDP },
	{ "SCTP", NET_PROTO_SCTP },
};

static const char *word_of(const char *const *words, size_t n, unsigned value)
{
	return value < n ? words[value] : "unknown";
}

// Index of a word, or -EINVAL.
static int value_of(const char *const *words, size_t n, const char *text)
{
	for (size_t i = 0; i < n; i++) {
		if (strcmp(words[i], text) == 0)
			return (int)i;
	}
	return -EINVAL;
}

const char *service_owner_name(enum service_owner owner)
{
	return word_of(owner_names, ARRAY_SIZE(owner_names), owner);
}

const char *service_mode_name(enum service_mode mode)
{
	return word_of(mode_names, ARRAY_SIZE(mode_names), mode);
}

const char *service_scheduler_name(enum service_scheduler s)
{
	return word_of(scheduler_names, ARRAY_SIZE(scheduler_names), s);
}

const char *service_client_address_name(enum service_client_address c)
{
	return word_of(client_address_names, ARRAY_SIZE(client_address_names), c);
}

const char *service_check_name(enum service_check_kind kind)
{
	return word_of(check_names, ARRAY_SIZE(check_names), kind);
}

const char *service_protocol_name(uint8_t protocol)
{
	for (size_t i = 0; i < ARRAY_SIZE(protocols); i++) {
		if (protocols[i].protocol == protocol)
			return protocols[i].name;
	}
	return "unknown";
}

int service_protocol_parse(const char *text, uint8_t *out)
{
	for (size_t i = 0; i < ARRAY_SIZE(protocols); i++) {
		if (strcmp(protocols[i].name, text) == 0) {
			*out = protocols[i].protocol;
			return 0;
		}
	}
	return -EINVAL;
}

int service_mode_parse(const char *text, enum service_mode *out)
{
	int value = value_of(mode_names, ARRAY_SIZE(mode_names), text);
	if (value < 0)
		return value;
	*out = (enum service_mode)value;
	return 0;
}

int service_scheduler_parse(const char *text, enum service_scheduler *out)
{
	int value = value_of(scheduler_names, ARRAY_SIZE(scheduler_names), text);
	if (value < 0)
		return value;
	*out = (enum service_scheduler)value;
	return 0;
}

int service_client_address_parse(const char *text, enum service_client_address *out)
{
	int value = value_of(client_address_names, ARRAY_SIZE(client_address_names), text);
	if (value < 0)
		return value;
	*out = (enum service_client_address)value;
	return 0;
}

int service_check_parse(const char *text, enum service_check_kind *out)
{
	int value = value_of(check_names, ARRAY_SIZE(check_names), text);
	if (value < 0)
		return value;
	*out = (enum service_check_kind)value;
	return 0;
}
