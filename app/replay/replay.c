// SPDX-License-Identifier: BSD-3-Clause
// sluice-replay: packets in from a capture, packets out to a capture, through the stages of the product, with the
// capture's timestamps as the clock. No EAL, no root, no hugepages. One arm: everything is on port p0.
#include "replay_priv.h"
#include "settings.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <pcap/pcap.h>
#include <stdlib.h>
#include <sys/random.h>

#define CHANGES_MAX    256
#define FRAME_MAX      65535
#define SWEEP_PER_TICK 65536u
#define EXIT_USAGE     2

struct change {
	uint64_t at_ns;
	const char *path;
	struct kube_result services;
};

struct options {
	const char *services;
	const char *in;
	const char *out;
	const char *config;
	const char *layout;
	struct replay_layouts layouts;
	struct change changes[CHANGES_MAX];
	uint32_t n_changes;
	bool json;
};

struct totals {
	uint64_t received, generated, sent, punted;
};

static int usage(const char *why)
{
	if (why)
		fprintf(stderr, "error: %s\n", why);
	fprintf(stderr,
		"usage: sluice-replay --services FILE --in IN.pcap --out OUT.pcap [--config FILE]\n"
		"       [--change SECONDS:FILE ...] [--neighbour ADDRESS=MAC ...] [--seed N] "
		"[--json]\n"
		"       [--layout FILE]  how frames lie in memory, a line each, the last for the "
		"rest:\n"
		"                        headroom=N tailroom=N fill=BYTE segments=N,N,...\n");
	return EXIT_USAGE;
}

static int print_errors(const struct error *err)
{
	char line[1024];
	for (uint32_t i = 0; i < err->n_items; i++)
		fprintf(stderr, "error: %s\n", error_format(err, i, line, sizeof(line)));
	if (err->n_lost)
		fprintf(stderr, "error: and %u more\n", err->n_lost);
	return 1;
}

// "12.5:FILE" -> 12500000000 and FILE. Digits and at most nine decimals.
static int change_parse(const char *text, struct change *out)
{
	uint64_t seconds = 0, fraction = 0, unit = CLOCK_S;
	const char *at = text;
	for (; *at >= '0' && *at <= '9'; at++) {
		if (seconds > UINT64_MAX / CLOCK_S / 10 - 10)
			return -EINVAL;
		seconds = seconds * 10 + (uint64_t)(*at - '0');
	}
	if (at == text)
		return -EINVAL;
	if (*at == '.') {
		for (at++; *at >= '0' && *at <= '9' && unit > 1; at++) {
			unit /= 10;
			fraction += (uint64_t)(*at - '0') * unit;
		}
	}
	if (*at != ':' || at[1] == 0)
		return -EINVAL;
	out->at_ns = seconds * CLOCK_S + fraction;
	out->path = at + 1;
	return 0;
}

static int neighbour_parse(char *text, struct replay_neighbour *out)
{
	char *equals = strchr(text, '=');
	if (equals == NULL)
		return -EINVAL;
	*equals = 0;
	int rc = address_parse(text, &out->address) || mac_parse(equals + 1, &out->mac);
	*equals = '=';
	return rc ? -EINVAL : 0;
}

static void seed_keys(struct replay_setup *setup, uint64_t seed)
{
	setup->key.words[0] = hash_stable(&seed, sizeof(seed), 101);
	setup->key.words[1] = hash_stable(&seed, sizeof(seed), 102);
}

static const struct option long_options[] = {
	{ "services", required_argument, NULL, 's' },
	{ "in", required_argument, NULL, 'i' },
	{ "out", required_argument, NULL, 'o' },
	{ "config", required_argument, NULL, 'c' },
	{ "change", required_argument, NULL, 'C' },
	{ "neighbour", required_argument, NULL, 'n' },
	{ "seed", required_argument, NULL, 'S' },
	{ "json", no_argument, NULL, 'j' },
	{ "layout", required_argument, NULL, 'l' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

// One option; NULL or what is wrong with it.
static const char *option_take(
	int option, char *text, struct options *o, struct replay_setup *setup)
{
	char *end = NULL;
	switch (option) {
	case 's':
		o->services = text;
		return NULL;
	case 'i':
		o->in = text;
		return NULL;
	case 'o':
		o->out = text;
		return NULL;
	case 'c':
		o->config = text;
		return NULL;
	case 'j':
		o->json = true;
		return NULL;
	case 'l':
		o->layout = text;
		return NULL;
	case 'C':
		if (o->n_changes == CHANGES_MAX ||
			change_parse(text, &o->changes[o->n_changes]) != 0)
			return "--change: want SECONDS:FILE, at most 256 of them";
		o->n_changes++;
		return NULL;
	case 'n':
		if (setup->n_neighbours == REPLAY_NEIGHBOURS_MAX ||
			neighbour_parse(text, &setup->neighbours[setup->n_neighbours]) != 0)
			return "--neighbour: want ADDRESS=MAC, at most 1024 of them";
		setup->n_neighbours++;
		return NULL;
	case 'S':
		errno = 0;
		seed_keys(setup, strtoull(text, &end, 0));
		return errno || *end || end == text || *text == '-' ? "--seed: want a number"
								    : NULL;
	default:
		return "unknown option, or an argument is missing";
	}
}

static int change_compare(const void *a, const void *b)
{
	const struct change *x = a, *y = b;
	return x->at_ns < y->at_ns ? -1 : x->at_ns > y->at_ns;
}

// ---------------------------------------------------------------- one packet

static void print_packet(FILE *out, const struct replay_scene *scene, const struct burst *b,
	uint64_t number, uint32_t n_out)
{
	const struct snapshot *s = scene->snapshot;
	const char *service = "";
	char backend[ADDRESS_TEXT_LEN + 10] = "";
	uint32_t listener_idx = pipeline_listener(s, b, 0);
	if (listener_idx < s->n_listeners)
		service = s->services[s->listeners[listener_idx].service_idx].name;
	if (b->backend_id[0] < s->n_backends) {
		const struct snapshot_backend *row = &s->backends[b->backend_id[0]];
		endpoint_format(&row->address, row->port, backend, sizeof(backend));
	}
	const char *reason = b->reason[0] ? drop_rows[b->reason[0]].name : "";
	fprintf(out,
		"{\"packet\": %" PRIu64
		", \"verdict\": \"%s\", \"reason\": \"%s\", \"service\": \"%s\", "
		"\"backend\": \"%s\", \"out\": %u}\n",
		number, pipeline_verdict_name(b->verdict[0]), reason, service, backend, n_out);
}

static void print_counters(const struct replay_scene *scene, const struct totals *t)
{
	printf("{\"counters\": {\"received\": %" PRIu64 ", \"generated\": %" PRIu64
	       ", \"sent\": %" PRIu64 ", \"punted\": %" PRIu64 ", \"dropped\": {",
		t->received, scene->counters.values[COUNTER_GENERATED], t->sent, t->punted);
	const char *comma = "";
	for (int i = 1; i < DROP_MAX; i++) {
		if (scene->counters.drops[i] == 0)
			continue;
		printf("%s\"%s\": %" PRIu64, comma, drop_rows[i].name, scene->counters.drops[i]);
		comma = ", ";
	}
	printf("}}}\n");
}

// Time goes on: seconds for stamps, and a bounded slice of ageing for each new second.
static void scene_tick(struct replay_scene *scene, uint64_t now_ns)
{
	struct pipeline *p = &scene->pipeline;
	uint32_t now_s = (uint32_t)(now_ns / CLOCK_S);
	p->now_ns = now_ns;
	if (now_s == p->now_s)
		return;
	p->now_s = now_s;
	bool any = p->flows.n_flows + p->oneway.families[0].n_entries +
			   p->oneway.families[1].n_entries >
		   0;
	for (uint32_t done = 0; done < SWEEP_PER_TICK && any; done += p->slice_done)
		pipeline_housekeep(p, 256);
}

struct player {
	struct replay_scene *scene;
	struct options *options;
	struct totals totals;
	pcap_dumper_t *dumper;
	uint8_t *buffer; // for a frame in one piece
	uint64_t now_ns;
	uint32_t next_change;
	// Lines from packet number first_line on, NULL: not known yet. Printed as soon as all before are.
	char **lines;
	uint64_t first_line;
	uint32_t n_lines;
	uint32_t lines_cap;
};

// Takes the line of a packet and prints what can be printed.
static void player_line(struct player *player, uint64_t number, char *line)
{
	while (player->first_line + player->n_lines <= number) {
		if (array_grow(player->lines, player->n_lines, player->lines_cap) != 0) {
			free(line);
			return;
		}
		player->lines[player->n_lines++] = NULL;
	}
	player->lines[number - player->first_line] = line;
	uint32_t n = 0;
	for (; n < player->n_lines && player->lines[n] != NULL; n++) {
		fputs(player->lines[n], stdout);
		free(player->lines[n]);
	}
	player->n_lines -= n;
	player->first_line += n;
	memmove(player->lines, player->lines + n, player->n_lines * sizeof(player->lines[0]));
}

// False: no room for the port's tag.
static bool player_write(struct player *player, struct rte_mbuf *mbuf)
{
	uint16_t vlan = player->scene->setup->vlan;
	if (vlan && !packet_vlan_insert(mbuf, vlan))
		return false;
	const struct replay_frame *frame = replay_frame_of(mbuf);
	struct timeval ts = { (time_t)(frame->at_ns / CLOCK_S),
		(suseconds_t)(frame->at_ns % CLOCK_S / 1000) };
	uint32_t len = replay_frame_gather(mbuf, player->buffer);
	struct pcap_pkthdr out = { .ts = ts, .caplen = len, .len = len };
	pcap_dump((u_char *)player->dumper, &out, player->buffer);
	player->totals.sent++;
	return true;
}

static int player_changes(struct player *player)
{
	struct options *o = player->options;
	struct error err = { 0 };
	int rc = 0;
	while (rc == 0 && player->next_change < o->n_changes &&
		o->changes[player->next_change].at_ns <= player->now_ns) {
		struct change *change = &o->changes[player->next_change++];
		player->scene->wall_ms = (int64_t)(change->at_ns / CLOCK_MS);
		rc = replay_scene_change(player->scene, &change->services, &err);
	}
	if (rc == 0)
		rc = replay_scene_clock(player->scene, (int64_t)(player->now_ns / CLOCK_MS), &err);
	if (rc != 0)
		print_errors(&err);
	error_fini(&err);
	return rc;
}

static void player_print(
	struct player *player, const struct burst *b, uint64_t number, uint32_t n_out)
{
	if (!player->options->json)
		return;
	char *line = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&line, &size);
	if (out == NULL)
		return;
	print_packet(out, player->scene, b, number, n_out);
	fclose(out);
	player_line(player, number, line);
}

static void player_drop(struct player *player, struct burst *b, enum drop_reason reason)
{
	b->verdict[0] = PIPELINE_DROP;
	b->reason[0] = (uint8_t)reason;
	counters_drop(&player->scene->counters, reason, 1);
}

static void player_run(struct player *player, struct rte_mbuf *mbuf);

// Fragments that were held, once their first one has been sent; or all that are left, given up.
static void player_released(struct player *player)
{
	static struct burst burst;
	burst.n = 0;
	pipeline_take_released(&player->scene->pipeline, &burst);
	uint32_t n = burst.n;
	struct rte_mbuf *mbufs[BURST_MAX];
	memcpy(mbufs, burst.mbufs, n * sizeof(mbufs[0]));
	for (uint32_t i = 0; i < n; i++)
		player_run(player, mbufs[i]);
}

static void player_give_up(struct player *player, struct rte_mbuf *mbuf)
{
	static const char lost[] = "\"verdict\": \"drop\", \"reason\": \"fragment_no_first\", "
				   "\"service\": \"\", \"backend\": \"\", \"out\": 0}\n";
	uint64_t number = replay_frame_of(mbuf)->number;
	char *line = NULL;
	if (player->options->json &&
		asprintf(&line, "{\"packet\": %" PRIu64 ", %s", number, lost) > 0)
		player_line(player, number, line);
	replay_frame_destroy(mbuf);
}

static void player_expire(struct player *player, uint64_t now_ns)
{
	struct rte_mbuf *mbufs[BURST_MAX];
	uint32_t n;
	do {
		n = pipeline_expire_held(&player->scene->pipeline, now_ns, mbufs, BURST_MAX);
		for (uint32_t i = 0; i < n; i++)
			player_give_up(player, mbufs[i]);
	} while (n == BURST_MAX);
}

// One packet at a time: the order of verdicts is the order of the capture. Takes the frame. One that is held keeps its memory, and lines
// of later ones wait for its: they are printed in order.
static void player_run(struct player *player, struct rte_mbuf *mbuf)
{
	static struct burst burst;
	burst.n = 1;
	burst.mbufs[0] = mbuf;
	burst.in_port[0] = 0;
	burst.hops[0] = 0;
	pipeline_run(&player->scene->pipeline, &burst);
	for (uint32_t i = 0; i < burst.n_given_up; i++)
		player_give_up(player, burst.given_up[i]);
	if (burst.verdict[0] == PIPELINE_HELD)
		return;
	uint32_t n_out = 0;
	if (burst.verdict[0] == PIPELINE_FORWARD || burst.verdict[0] == PIPELINE_REPLY) {
		n_out = player_write(player, mbuf);
		if (n_out == 0)
			player_drop(player, &burst, DROP_NO_HEADROOM);
	} else if (burst.verdict[0] == PIPELINE_PUNT) {
		player->totals.punted++;
	}
	player_print(player, &burst, replay_frame_of(mbuf)->number, n_out);
	replay_frame_destroy(mbuf);
	if (player->scene->pipeline.n_released > 0)
		player_released(player);
}

// The tag of a tagged port. False: not its VLAN, and the frame is gone.
static bool player_untag(struct player *player, struct rte_mbuf *mbuf)
{
	uint16_t vlan = player->scene->setup->vlan;
	enum drop_reason refused = vlan ? packet_vlan_strip(mbuf, vlan) : DROP_NONE;
	if (refused == DROP_NONE)
		return true;
	static struct burst burst;
	burst.backend_id[0] = SNAPSHOT_BACKEND_NONE;
	burst.listener_idx[0] = UINT32_MAX;
	player_drop(player, &burst, refused);
	player_print(player, &burst, replay_frame_of(mbuf)->number, 0);
	replay_frame_destroy(mbuf);
	return false;
}

static int player_packet(
	struct player *player, const struct pcap_pkthdr *header, const uint8_t *bytes)
{
	uint32_t len = header->caplen < REPLAY_FRAME_MAX ? header->caplen : REPLAY_FRAME_MAX;
	struct rte_mbuf *mbuf = replay_frame_create(
		bytes, len, replay_layout_of(&player->options->layouts, player->totals.received));
	if (mbuf == NULL) {
		fprintf(stderr, "error: out of memory\n");
		return -ENOMEM;
	}
	struct replay_frame *frame = replay_frame_of(mbuf);
	frame->at_ns = (uint64_t)header->ts.tv_sec * CLOCK_S + (uint64_t)header->ts.tv_usec;
	frame->number = ++player->totals.received;
	scene_tick(player->scene, player->now_ns);
	player_expire(player, player->now_ns);
	if (player_untag(player, mbuf))
		player_run(player, mbuf);
	return 0;
}

static int play(struct replay_scene *scene, struct options *o, pcap_t *in)
{
	struct player player = { .scene = scene, .options = o, .first_line = 1 };
	pcap_t *shape = pcap_open_dead(DLT_EN10MB, FRAME_MAX);
	player.buffer = malloc(FRAME_MAX + 1);
	player.dumper = shape ? pcap_dump_open(shape, o->out) : NULL;
	if (player.dumper == NULL || player.buffer == NULL) {
		fprintf(stderr, "error: --out: %s\n", shape ? pcap_geterr(shape) : "out of memory");
		free(player.buffer);
		if (shape)
			pcap_close(shape);
		return 1;
	}
	struct pcap_pkthdr *header;
	const u_char *frame;
	int rc, failed = 0;
	while (!failed && (rc = pcap_next_ex(in, &header, &frame)) == 1) {
		uint64_t at_ns =
			(uint64_t)header->ts.tv_sec * CLOCK_S + (uint64_t)header->ts.tv_usec;
		if (at_ns > player.now_ns) // a clock that jumps back stands still
			player.now_ns = at_ns;
		failed = player_changes(&player) != 0;
		if (!failed)
			failed = player_packet(&player, header, frame) != 0;
	}
	player_expire(&player, UINT64_MAX);
	if (!failed && rc == PCAP_ERROR) {
		fprintf(stderr, "error: --in: %s\n", pcap_geterr(in));
		failed = 1;
	}
	if (o->json)
		print_counters(scene, &player.totals);
	pcap_dump_close(player.dumper);
	pcap_close(shape);
	free(player.lines);
	free(player.buffer);
	return failed ? 1 : 0;
}

// ---------------------------------------------------------------- start

// What a capture needs of a whole configuration.
static int take_settings(const char *path, struct replay_setup *setup, struct error *err)
{
	static struct settings settings; // large
	settings_defaults(&settings);
	int rc = settings_load(path, &settings, err);
	if (rc != 0)
		return rc;
	struct service_defaults *d = &setup->defaults;
	rc = service_mode_parse(settings.services.mode, &d->mode);
	if (rc != 0)
		return error_add(err, -rc, "services.mode", "%s", settings.services.mode);
	d->tcp_idle_s = (uint32_t)(settings.services.tcp_idle_ns / CLOCK_S);
	d->udp_idle_s = (uint32_t)(settings.services.udp_idle_ns / CLOCK_S);
	d->drain_timeout_s = (uint32_t)(settings.services.drain_timeout_ns / CLOCK_S);
	if (settings.n_ports > 0) {
		setup->mtu = (uint16_t)settings.ports[0].mtu;
		setup->vlan = (uint16_t)settings.ports[0].vlan;
	}
	setup->flow_capacity = settings.flows.capacity;
	setup->snat_port_min = settings.snat.port_min;
	setup->snat_port_max = settings.snat.port_max;
	setup->n_snat = settings.snat.n_addresses;
	for (uint32_t i = 0; i < setup->n_snat; i++)
		setup->snat[i] = settings.snat.addresses[i];
	settings_fini(&settings);
	return 0;
}

static int setup_from_settings(const char *path, struct replay_setup *setup, struct error *err)
{
	setup->defaults = service_defaults_builtin();
	setup->mtu = 1500;
	setup->flow_capacity = 1000000;
	setup->snat_port_min = 1024;
	setup->snat_port_max = 65535;
	setup->n_snat = 2;
	address_parse("192.0.2.1", &setup->snat[0]);
	address_parse("2001:db8::1", &setup->snat[1]);
	return path ? take_settings(path, setup, err) : 0;
}

static int load_all(struct options *o, const struct replay_setup *setup,
	struct kube_result *services, struct error *err)
{
	int rc = replay_load_services(o->services, &setup->defaults, services, err);
	for (uint32_t i = 0; i < o->n_changes; i++) {
		int failed = replay_load_services(
			o->changes[i].path, &setup->defaults, &o->changes[i].services, err);
		rc = rc ? rc : failed;
	}
	qsort(o->changes, o->n_changes, sizeof(o->changes[0]), change_compare);
	return rc;
}

static int run(struct options *o, struct replay_setup *setup)
{
	struct error err = { 0 };
	struct kube_result services = { 0 };
	struct replay_scene *scene = aligned_alloc(64, (sizeof(*scene) + 63) & ~(size_t)63);
	char text[PCAP_ERRBUF_SIZE] = "";
	pcap_t *in = NULL;
	int code = 1;
	if (scene == NULL)
		return 1;
	memset(scene, 0, sizeof(*scene));
	if ((o->layout && replay_layouts_load(o->layout, &o->layouts, &err) != 0) ||
		setup_from_settings(o->config, setup, &err) != 0 ||
		load_all(o, setup, &services, &err) != 0 ||
		replay_scene_init(scene, setup, &services, &err) != 0) {
		print_errors(&err);
		goto out;
	}
	in = pcap_open_offline_with_tstamp_precision(o->in, PCAP_TSTAMP_PRECISION_NANO, text);
	if (in == NULL)
		fprintf(stderr, "error: --in: %s\n", text);
	else if (pcap_datalink(in) != DLT_EN10MB)
		fprintf(stderr, "error: --in: %s: link type %d; allowed: Ethernet (1)\n", o->in,
			pcap_datalink(in));
	else
		code = play(scene, o, in);
out:
	if (in)
		pcap_close(in);
	replay_scene_fini(scene);
	free(scene);
	kube_result_fini(&services);
	replay_layouts_fini(&o->layouts);
	for (uint32_t i = 0; i < o->n_changes; i++)
		kube_result_fini(&o->changes[i].services);
	error_fini(&err);
	return code;
}

int main(int argc, char **argv)
{
	static struct options options;
	static struct replay_setup setup;
	uint64_t seed = 0;
	if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		seed = (uint64_t)clock_wall_ms();
	seed_keys(&setup, seed);
	int option;
	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (option == 'h') {
			usage(NULL);
			return 0;
		}
		const char *wrong = option_take(option, optarg, &options, &setup);
		if (wrong)
			return usage(wrong);
	}
	if (optind < argc)
		return usage("arguments without an option");
	if (!options.services || !options.in || !options.out)
		return usage("--services, --in and --out are needed");
	return run(&options, &setup);
}
