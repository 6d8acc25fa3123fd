// SPDX-License-Identifier: BSD-3-Clause
// Settings of the kernel for a twin, below /proc/sys/net, on that device only. What was there is
// remembered and put back at a clean end (a twin we made takes its settings along when it goes). A
// setting that cannot be written (read-only /proc/sys, older kernel) is told and lived without.
#include "punt_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static const struct twin_setting {
	const char *path; // %s = the twin
	const char *value;
	bool made_only; // left to the operator on a twin that is his
} settings[] = {
	// Each twin answers for the addresses on it, and asks with an address that fits the
	// question.
	{ "ipv4/conf/%s/arp_ignore", "1", false },
	{ "ipv4/conf/%s/arp_announce", "2", false },
	// Follow a silent change of a neighbour's MAC: confirmed for 0.75 to 2.25 s, probed at once
	// when used after that, twice by its MAC, then once by broadcast, which finds a new MAC
	// before the old one is given up. (300 ms here follows within 0.7 s, at five times the
	// probes: each wakes a sleeping worker.)
	{ "ipv4/neigh/%s/base_reachable_time_ms", "1500", false },
	{ "ipv4/neigh/%s/delay_first_probe_time", "0", false },
	{ "ipv4/neigh/%s/retrans_time_ms", "100", false },
	{ "ipv4/neigh/%s/ucast_solicit", "2", false },
	{ "ipv4/neigh/%s/mcast_resolicit", "1", false },
	{ "ipv4/neigh/%s/locktime", "0", false },
	{ "ipv6/neigh/%s/base_reachable_time_ms", "1500", false },
	{ "ipv6/neigh/%s/delay_first_probe_time", "0", false },
	{ "ipv6/neigh/%s/retrans_time_ms", "100", false },
	{ "ipv6/neigh/%s/ucast_solicit", "2", false },
	{ "ipv6/neigh/%s/mcast_resolicit", "1", false },
	// The MAC is the port's, so is the link-local address: nobody else can have it.
	{ "ipv6/conf/%s/disable_ipv6", "0", true },
	{ "ipv6/conf/%s/accept_dad", "0", true },
	{ "ipv6/conf/%s/dad_transmits", "0", true },
	{ "ipv6/conf/%s/router_solicitations", "0", true },
	{ "ipv6/conf/%s/keep_addr_on_down", "1", false },
};
_Static_assert(ARRAY_SIZE(settings) < PUNT_SETTINGS_MAX, "room for rp_filter too");

static void setting_path(const struct twin *t, const char *path, char *out, size_t len)
{
	size_t n = (size_t)snprintf(out, len, "/proc/sys/net/");
	snprintf(out + n, len - n, path, t->name);
}

static int setting_read(const char *path, char *out, size_t len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ssize_t n = read(fd, out, len - 1);
	close(fd);
	out[n > 0 ? n : 0] = 0;
	out[strcspn(out, "\n")] = 0;
	return n > 0 ? 0 : -EIO;
}

static int setting_write(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int status = write(fd, value, strlen(value)) < 0 ? -errno : 0;
	close(fd);
	return status;
}

static void setting_apply(
	struct twin *t, const char *format, const char *value, struct twin_setting_saved *saved)
{
	char path[128];
	setting_path(t, format, path, sizeof(path));
	if (setting_read(path, saved->value, sizeof(saved->value)) == 0 &&
		strcmp(saved->value, value) == 0)
		return;
	int status = setting_write(path, value);
	saved->is_saved = status == 0 && saved->value[0] != 0;
	// No IPv6 in this kernel, no IPv6 settings to miss.
	if (status != 0 && !(status == -ENOENT && strncmp(format, "ipv6", 4) == 0))
		control_note(t->punt->control, LOG_LEVEL_WARN, "twin-setting", t->name,
			"%s cannot be set to %s: %s", path, value, strerror(-status));
}

// Answers to what the host asks arrive on the twin whatever its routes say, so no strict check of
// the way back. The kernel takes the larger of that of all interfaces and that of this one; 2 is
// the loose check.
static const char *rp_filter_value(void)
{
	char all[24];
	if (setting_read("/proc/sys/net/ipv4/conf/all/rp_filter", all, sizeof(all)) == 0 &&
		all[0] != '0')
		return "2";
	return "0";
}

void settings_apply(struct twin *t)
{
	memset(t->saved, 0, sizeof(t->saved));
	for (size_t i = 0; i < ARRAY_SIZE(settings); i++)
		if (t->is_made || !settings[i].made_only)
			setting_apply(t, settings[i].path, settings[i].value, &t->saved[i]);
	setting_apply(
		t, "ipv4/conf/%s/rp_filter", rp_filter_value(), &t->saved[ARRAY_SIZE(settings)]);
}

void settings_restore(struct twin *t)
{
	char path[128];
	for (size_t i = 0; i <= ARRAY_SIZE(settings); i++) {
		if (!t->saved[i].is_saved)
			continue;
		setting_path(t,
			i < ARRAY_SIZE(settings) ? settings[i].path : "ipv4/conf/%s/rp_filter",
			path, sizeof(path));
		setting_write(path, t->saved[i].value);
		t->saved[i].is_saved = false;
	}
}
