// SPDX-License-Identifier: BSD-3-Clause
// The shapes of everything that goes in and out, and the query and path parameters: one table. Request bodies are
// compared with it (body.c), the OpenAPI document is made from it (openapi.c), a test compares every answer with
// that document.
#include "admin_priv.h"

#define RO  ADMIN_READ_ONLY
#define REQ ADMIN_REQUIRED
#define NUL ADMIN_NULLABLE

static const char *const owners[] = { "kubernetes", "file", "api", NULL };
static const char *const modes[] = { "fullnat", "dnat", "ipip", "gue", "l2dsr", NULL };
static const char *const schedulers[] = { "maglev", "least-connections", NULL };
static const char *const client_addresses[] = { "none", "toa", "proxy-v2", NULL };
static const char *const check_kinds[] = { "tcp", "http", "https", "grpc", "udp", "icmp", "none",
	NULL };
static const char *const listener_protocols[] = { "TCP", "UDP", "SCTP", NULL };
static const char *const states[] = { "up", "down", "draining", NULL };
static const char *const on_deadline[] = { "keep", "reset", NULL };
static const char *const question_protocols[] = { "tcp", "udp", "icmp", "icmpv6", "TCP", "UDP",
	"ICMP", "ICMPv6", NULL };
static const char *const verdicts[] = { "forward", "reply", "punt", "drop", "resteer", "wait",
	NULL };
static const char *const drop_classes[] = { "policy", "fault", "resource", "answered", "hardware",
	NULL };

#define TEXT(n, h)                                                           \
	{                                                                    \
		.name = (n), .type = ADMIN_STRING, .flags = REQ, .help = (h) \
	}
#define COUNT(n, h)                                                                             \
	{                                                                                       \
		.name = (n), .type = ADMIN_INTEGER, .flags = REQ, .max = INT64_MAX, .help = (h) \
	}
#define INTEGER(n, h)                                                         \
	{                                                                     \
		.name = (n), .type = ADMIN_INTEGER, .flags = REQ, .help = (h) \
	}
#define BOOL(n, h)                                                            \
	{                                                                     \
		.name = (n), .type = ADMIN_BOOLEAN, .flags = REQ, .help = (h) \
	}
#define WORD(n, w, h)                                                                        \
	{                                                                                    \
		.name = (n), .type = ADMIN_STRING, .flags = REQ, .allowed = (w), .help = (h) \
	}
#define TIME(n, f, h)                                                                   \
	{                                                                               \
		.name = (n), .type = ADMIN_STRING, .flags = (f), .format = "date-time", \
		.help = (h)                                                             \
	}
#define SPAN(n, h)                                                                   \
	{                                                                            \
		.name = (n), .type = ADMIN_STRING, .format = "duration", .help = (h) \
	}
#define ADDRESS(n, h)                                                                             \
	{                                                                                         \
		.name = (n), .type = ADMIN_STRING, .flags = REQ, .format = "address", .help = (h) \
	}
#define NAME(n, h)                                                                           \
	{                                                                                    \
		.name = (n), .type = ADMIN_STRING, .flags = REQ, .format = "name", .min = 1, \
		.max = 63, .help = (h)                                                       \
	}
#define PORT(n, h)                                                                        \
	{                                                                                 \
		.name = (n), .type = ADMIN_INTEGER, .flags = REQ, .min = 0, .max = 65535, \
		.help = (h)                                                               \
	}
#define OBJECT(n, f, s, h)                                                              \
	{                                                                               \
		.name = (n), .type = ADMIN_OBJECT, .flags = (f), .of = (s), .help = (h) \
	}
#define LIST(n, f, s, h)                                                               \
	{                                                                              \
		.name = (n), .type = ADMIN_ARRAY, .flags = (f), .of = (s), .help = (h) \
	}
#define NUMBERS(n, h)                                                                           \
	{                                                                                       \
		.name = (n), .type = ADMIN_NUMBERS, .flags = REQ, .max = INT64_MAX, .help = (h) \
	}
#define END                  \
	{                    \
		.name = NULL \
	}

// ---------------------------------------------------------------- services
static const struct admin_field service_metadata[] = {
	{ .name = "namespace",
		.type = ADMIN_STRING,
		.format = "name",
		.min = 1,
		.max = 63,
		.help = "the path decides where there is one" },
	{ .name = "name",
		.type = ADMIN_STRING,
		.format = "name",
		.min = 1,
		.max = 63,
		.help = "the path decides where there is one" },
	{ .name = "managedBy",
		.type = ADMIN_STRING,
		.flags = RO,
		.allowed = owners,
		.help = "who owns the object; only `api` ones can be written here" },
	{ .name = "generation",
		.type = ADMIN_INTEGER,
		.flags = RO,
		.max = INT64_MAX,
		.help = "grows with each change of the object; its ETag" },
	END,
};
static const struct admin_field listener[] = {
	{ .name = "name",
		.type = ADMIN_STRING,
		.max = 63,
		.help = "may be empty where there is only one" },
	{ .name = "protocol",
		.type = ADMIN_STRING,
		.allowed = listener_protocols,
		.help = "default TCP" },
	{ .name = "port",
		.type = ADMIN_INTEGER,
		.flags = REQ,
		.min = 1,
		.max = 65535,
		.help = "first port" },
	{ .name = "portMax",
		.type = ADMIN_INTEGER,
		.min = 1,
		.max = 65535,
		.help = "last port of a range (1..65535: any port), whose packets keep their port; "
			"default: port" },
	END,
};
static const struct admin_field affinity[] = {
	{ .name = "timeout",
		.type = ADMIN_STRING,
		.flags = REQ,
		.format = "duration",
		.help = "one client stays with one backend for this long: 1s..24h" },
	END,
};
static const struct admin_field health_check[] = {
	{ .name = "kind", .type = ADMIN_STRING, .allowed = check_kinds, .help = "default tcp" },
	{ .name = "path",
		.type = ADMIN_STRING,
		.max = 255,
		.help = "of an HTTP check, begins with /" },
	{ .name = "port",
		.type = ADMIN_PORT,
		.help = "probe this port, or the one of this listener" },
	SPAN("interval", "100ms..1h"),
	SPAN("timeout", "10ms..interval"),
	{ .name = "rise",
		.type = ADMIN_INTEGER,
		.min = 1,
		.max = 10,
		.help = "successes in a row until up" },
	{ .name = "fall",
		.type = ADMIN_INTEGER,
		.min = 1,
		.max = 10,
		.help = "failures in a row until down" },
	END,
};
static const struct admin_field idle_timeout[] = {
	SPAN("tcp", "of an established TCP flow"),
	SPAN("udp", "of a UDP flow that was answered"),
	END,
};
static const struct admin_field conditions[] = {
	{ .name = "ready", .type = ADMIN_BOOLEAN, .help = "may take new flows" },
	{ .name = "serving", .type = ADMIN_BOOLEAN, .help = "answers, though perhaps ending" },
	{ .name = "terminating", .type = ADMIN_BOOLEAN, .help = "is ending" },
	END,
};
static const struct admin_field backend_spec[] = {
	ADDRESS("address", "of the family of a service address; fullnat, ipip and gue can cross"),
	{ .name = "ports",
		.type = ADMIN_NUMBERS,
		.flags = REQ,
		.min = 1,
		.max = 65535,
		.help = "port by listener name; the listener's own where it is a range, and in "
			"modes "
			"ipip, gue, l2dsr" },
	{ .name = "weight",
		.type = ADMIN_INTEGER,
		.min = 0,
		.max = SERVICE_WEIGHT_MAX,
		.help = "default 100; 0 = no new flows" },
	OBJECT("conditions", 0, "Conditions", "what the cluster says; default: ready"),
	{ .name = "target", .type = ADMIN_STRING, .max = 127, .help = "pod or host name" },
	END,
};
static const struct admin_field service_spec[] = {
	{ .name = "addresses",
		.type = ADMIN_STRINGS,
		.flags = REQ,
		.format = "address",
		.min = 1,
		.max = SERVICE_ADDRESSES_MAX,
		.help = "VIPs" },
	{ .name = "listeners",
		.type = ADMIN_ARRAY,
		.flags = REQ,
		.of = "Listener",
		.min = 1,
		.max = SERVICE_LISTENERS_MAX,
		.help = "protocols and ports of every address" },
	{ .name = "mode",
		.type = ADMIN_STRING,
		.allowed = modes,
		.help = "default: configuration" },
	{ .name = "scheduler",
		.type = ADMIN_STRING,
		.allowed = schedulers,
		.help = "default maglev" },
	{ .name = "clientAddress",
		.type = ADMIN_STRING,
		.allowed = client_addresses,
		.help = "how a fullnat backend learns the client, on TCP listeners; default none" },
	OBJECT("sessionAffinity", NUL, "SessionAffinity", "by client address; absent = none"),
	{ .name = "sourceRanges",
		.type = ADMIN_STRINGS,
		.format = "prefix",
		.max = SERVICE_SOURCES_MAX,
		.help = "clients that may come; empty = everybody" },
	OBJECT("healthCheck", 0, "HealthCheck", "default: configuration"),
	OBJECT("idleTimeout", 0, "IdleTimeout", "default: configuration"),
	SPAN("drainTimeout", "how long a removed backend keeps its flows; default: configuration"),
	{ .name = "backends",
		.type = ADMIN_ARRAY,
		.of = "BackendSpec",
		.max = SERVICE_BACKENDS_MAX,
		.help = "in any order" },
	END,
};
static const struct admin_field service_status[] = {
	TEXT("digest", "of the published tables, equal on every node with the same content"),
	LIST("backends", REQ, "Backend", "one for each listener and backend"),
	END,
};
static const struct admin_field service[] = {
	OBJECT("metadata", 0, "ServiceMetadata", "whose and which"),
	OBJECT("spec", REQ, "ServiceSpec", "what is wanted"),
	OBJECT("status", RO, "ServiceStatus", "what is"),
	{ .name = "diff",
		.type = ADMIN_ANY,
		.flags = RO,
		.help = "dry run: the merge patch from what is to what would be" },
	END,
};
static const struct admin_field service_patch[] = {
	OBJECT("metadata", 0, "ServiceMetadata", "must name the same object"),
	{ .name = "spec", .type = ADMIN_ANY, .help = "RFC 7396: members replace, null removes" },
	{ .name = "status", .type = ADMIN_ANY, .flags = RO, .help = "ignored" },
	END,
};
static const struct admin_field list_metadata[] = {
	COUNT("generation", "of what the list shows"),
	{ .name = "continue",
		.type = ADMIN_STRING,
		.flags = REQ | NUL,
		.help = "token of the next page" },
	{ .name = "remaining",
		.type = ADMIN_INTEGER,
		.flags = REQ | NUL,
		.max = INT64_MAX,
		.help = "items after this page, where known" },
	END,
};
#define LIST_OF(variable, shape)                                        \
	static const struct admin_field variable[] = {                  \
		LIST("items", REQ, shape, "in a stable order"),         \
		OBJECT("metadata", REQ, "ListMetadata", "of the page"), \
		END,                                                    \
	}
LIST_OF(service_list, "Service");

// ---------------------------------------------------------------- backends
static const struct admin_field backend_verdicts[] = {
	TEXT("cluster", "ready, not-ready, terminating"),
	TEXT("active", "probes: up, down, unknown, off"),
	TEXT("passive", "traffic: off"),
	TEXT("admin", "operator: in, draining"),
	END,
};
static const struct admin_field backend[] = {
	TEXT("service", "namespace/name"),
	TEXT("listener", "name of the listener"),
	ADDRESS("address", "of the backend"),
	PORT("port", "of the backend"),
	WORD("state", states, "the verdict"),
	BOOL("eligible", "takes new flows now"),
	TEXT("reason", "of the verdict"),
	TIME("since", REQ | NUL, "of the last change of the verdict"),
	COUNT("weight", "with the operator's overlay"),
	COUNT("flows", "created and not ended"),
	NUMBERS("counters", "packets, bytes and flows since start"),
	OBJECT("verdicts", REQ, "Verdicts", "what the verdict is made of"),
	OBJECT("overlay", REQ | NUL, "Overlay", "the operator's word, if there is one"),
	END,
};
LIST_OF(backend_list, "Backend");
static const struct admin_field overlay[] = {
	BOOL("draining", "takes no new flows"),
	TIME("since", REQ | NUL, "of the drain"),
	TIME("deadline", REQ | NUL, "of the drain"),
	WORD("onDeadline", on_deadline, "what happens to the flows left then"),
	TEXT("reason", "given by the operator"),
	{ .name = "weight",
		.type = ADMIN_INTEGER,
		.flags = REQ | NUL,
		.max = SERVICE_WEIGHT_MAX,
		.help = "in place of the service's" },
	END,
};
static const struct admin_field drain[] = {
	{ .name = "deadline",
		.type = ADMIN_STRING,
		.flags = NUL,
		.min = 1,
		.max = 40,
		.help = "a duration from now (5m) or a time (RFC 3339, UTC); absent = none" },
	{ .name = "onDeadline",
		.type = ADMIN_STRING,
		.allowed = on_deadline,
		.help = "keep (default) or reset the flows left at the deadline" },
	{ .name = "reason",
		.type = ADMIN_STRING,
		.max = SERVICE_REASON_MAX - 1,
		.help = "free text" },
	END,
};
static const struct admin_field backend_patch[] = {
	{ .name = "weight",
		.type = ADMIN_INTEGER,
		.flags = REQ | NUL,
		.max = SERVICE_WEIGHT_MAX,
		.help = "null takes the overlay back" },
	END,
};
static const struct admin_field nothing[] = { END };

// ---------------------------------------------------------------- machine
static const struct admin_field link_[] = {
	BOOL("up", "carrier"),
	COUNT("speedMbps", "0 = not known"),
	END,
};
static const struct admin_field port[] = {
	TEXT("name", "as configured"),
	TEXT("device", "as configured"),
	TEXT("driver", "of DPDK"),
	TEXT("twin", "TAP device for what is not ours"),
	TEXT("mac", "of the port and of its twin"),
	COUNT("mtu", "bytes"),
	INTEGER("numa", "node, -1 = any"),
	COUNT("receiveQueues", "one or more workers poll each"),
	COUNT("transmitQueues", "one for each worker"),
	OBJECT("link", REQ, "Link", "state of the wire"),
	NUMBERS("counters", "packets and bytes of workers, misses and errors of the driver"),
	END,
};
LIST_OF(port_list, "Port");
static const struct admin_field worker[] = {
	TEXT("name", "w0, w1, ..."),
	COUNT("cpu", "it runs on"),
	INTEGER("numa", "node of its memory, -1 = any"),
	BOOL("sleeping", "idle, woken by its ports or by control"),
	{ .name = "busyRatio",
		.type = ADMIN_REAL,
		.flags = REQ,
		.help = "0..1 over the last second" },
	COUNT("heartbeat", "loop iterations"),
	COUNT("flows", "in its table"),
	COUNT("flowCapacity", "of its table"),
	COUNT("generation", "of the snapshot it uses"),
	TEXT("variant", "of the flow look-up"),
	NUMBERS("counters", "as in counters.def"),
	NUMBERS("drops", "by reason"),
	INTEGER("imbalance", "accounting identity: 0 at rest"),
	END,
};
static const struct admin_field control_counters[] = {
	NUMBERS("counters", "as in counters.def"),
	NUMBERS("drops", "by reason"),
	INTEGER("imbalance", "accounting identity: 0 at rest together with the workers'"),
	END,
};
static const struct admin_field worker_list[] = {
	LIST("items", REQ, "Worker", "by index"),
	OBJECT("control", REQ, "ControlCounters", "what control counts for frames it was given"),
	OBJECT("metadata", REQ, "ListMetadata", "of the page"),
	END,
};
static const struct admin_field drop[] = {
	TEXT("reason", "its name, as in metrics and explanations"),
	WORD("class", drop_classes, "what kind of reason"),
	TEXT("help", "what it means"),
	TEXT("fix", "what to look at, may be empty"),
	COUNT("total", "packets since start"),
	END,
};
LIST_OF(drop_list, "Drop");
static const struct admin_field flow[] = {
	WORD("protocol", listener_protocols, "of the flow"),
	ADDRESS("client", "its address"),
	PORT("clientPort", "its port"),
	ADDRESS("vip", "address it came to"),
	PORT("vipPort", "port it came to"),
	TEXT("service", "namespace/name, empty when gone"),
	ADDRESS("backend", "its address"),
	PORT("backendPort", "its port"),
	ADDRESS("source", "what the backend sees: our address in mode fullnat, else the client's"),
	PORT("sourcePort", "our port towards the backend"),
	TEXT("state", "of the flow"),
	{ .name = "idle",
		.type = ADMIN_STRING,
		.flags = REQ,
		.format = "duration",
		.help = "since the last packet" },
	COUNT("worker", "that owns it"),
	END,
};
LIST_OF(flow_list, "Flow");
static const struct admin_field event_[] = {
	COUNT("id", "1, 2, ..."),
	TIME("time", REQ | NUL, "when"),
	TEXT("kind", "stable word"),
	TEXT("object", "what it is about"),
	TEXT("text", "for people"),
	END,
};
LIST_OF(event_list, "Event");
static const struct admin_field digest[] = {
	TEXT("digest", "16 hexadecimal digits, of everything that decides where a flow goes"),
	COUNT("generation", "of the published snapshot"),
	END,
};
static const struct admin_field reload[] = {
	BOOL("reloaded", "always true: a refusal is a problem"),
	COUNT("generation", "of the published snapshot"),
	END,
};
static const struct admin_field cluster_resource[] = {
	TEXT("name", "services, endpointslices, ..."),
	BOOL("synced", "it was listed whole, once"),
	BOOL("watching", "news of it come at this moment"),
	TEXT("trouble", "none, or what stands in the way now: unreachable, forbidden, ..."),
	TEXT("troubleText", "the newest, also when it is over"),
	TIME("lastByte", REQ | NUL, "when the API last said something of it"),
	COUNT("lists", "begun"),
	COUNT("watches", "begun"),
	COUNT("events", "taken"),
	COUNT("expired", "times that the API no longer had the version: 410"),
	COUNT("errors", "connections that failed or broke"),
	COUNT("refused", "objects that make no sense"),
	END,
};
static const struct admin_field kubernetes[] = {
	TEXT("server", "URL of the API"),
	TEXT("node", "name of this machine among those that run sluice"),
	TEXT("leader", "node that gives addresses and writes status, empty: not known"),
	BOOL("leading", "this node does"),
	BOOL("synced", "what the API says is in force"),
	COUNT("missingRules", "permissions that this node lacks"),
	TIME("certificateExpires", REQ | NUL, "of this node's client certificate"),
	TIME("lastChange", REQ | NUL, "when a change was last put in force"),
	COUNT("services", "that are served or refused here"),
	COUNT("refusedServices", "whose newest form is refused"),
	COUNT("guardedServices",
		"whose vanished endpoints are served on, for a while or until released"),
	COUNT("endpoints", "of all slices"),
	COUNT("written", "writes of status"),
	COUNT("writeErrors", "writes of status that failed"),
	COUNT("saved", "times that the last good state was kept on disk"),
	LIST("resources", REQ, "ClusterResource", "each one that is followed"),
	END,
};
static const struct admin_field rates[] = {
	{ .name = "received", .type = ADMIN_REAL, .flags = REQ, .help = "packets a second" },
	{ .name = "sent", .type = ADMIN_REAL, .flags = REQ, .help = "packets a second" },
	{ .name = "dropped", .type = ADMIN_REAL, .flags = REQ, .help = "packets a second" },
	{ .name = "droppedLastMinute",
		.type = ADMIN_REAL,
		.flags = REQ,
		.help = "packets a second, mean of a minute" },
	END,
};
static const struct admin_field system_[] = {
	TEXT("version", "of sluiced"),
	TIME("started", REQ | NUL, "when"),
	SPAN("uptime", "since then"),
	BOOL("ready", "as /readyz"),
	TEXT("reason", "why not ready, or empty"),
	COUNT("generation", "of the published snapshot"),
	COUNT("storeGeneration", "of the desired state"),
	TEXT("digest", "of the published snapshot"),
	NUMBERS("services", "by owner"),
	NUMBERS("backends", "by state"),
	COUNT("flows", "over all workers"),
	OBJECT("rates", REQ, "Rates", "over all workers, last second"),
	END,
};
static const struct admin_field question[] = {
	{ .name = "source",
		.type = ADMIN_STRING,
		.flags = REQ,
		.format = "address",
		.help = "of the packet" },
	{ .name = "sourcePort", .type = ADMIN_INTEGER, .max = 65535, .help = "default 0" },
	{ .name = "destination",
		.type = ADMIN_STRING,
		.flags = REQ,
		.format = "address",
		.help = "of the packet" },
	{ .name = "destinationPort", .type = ADMIN_INTEGER, .max = 65535, .help = "default 0" },
	{ .name = "protocol",
		.type = ADMIN_STRING,
		.allowed = question_protocols,
		.help = "default TCP" },
	{ .name = "flags",
		.type = ADMIN_STRING,
		.max = 32,
		.help = "of TCP: letters of FSRPAU, default S" },
	{ .name = "port",
		.type = ADMIN_STRING,
		.max = 31,
		.help = "NIC port it comes in by; default: the first" },
	END,
};
static const struct admin_field step[] = {
	COUNT("step", "1, 2, ..."),
	TEXT("name", "of the stage"),
	TEXT("text", "result and reason"),
	END,
};
static const struct admin_field explanation[] = {
	WORD("verdict", verdicts, "what would happen"),
	TEXT("reason", "drop reason, or empty"),
	TEXT("meaning", "of the drop reason, or empty"),
	TEXT("fix", "for the drop reason, or empty"),
	TEXT("service", "namespace/name, or empty"),
	TEXT("backend", "address:port, or empty"),
	COUNT("worker", "that answered"),
	LIST("steps", REQ, "Step", "in order"),
	END,
};
static const struct admin_field finding[] = {
	TEXT("pointer", "JSON pointer into the body, or ?parameter"),
	TEXT("detail", "value and what is allowed"),
	{ .name = "allowed",
		.type = ADMIN_STRINGS,
		.help = "the words, where there is a list of them" },
	END,
};
static const struct admin_field problem[] = {
	TEXT("type", "URI of the kind of problem"),
	TEXT("title", "of the kind"),
	COUNT("status", "as the status line"),
	TEXT("detail", "of this one"),
	TEXT("instance", "path"),
	TEXT("code", "stable word"),
	LIST("errors", 0, "Finding", "every one that was found"),
	{ .name = "errorsOmitted",
		.type = ADMIN_INTEGER,
		.max = INT64_MAX,
		.help = "beyond those" },
	TEXT("requestId", "as X-Request-Id"),
	END,
};

const struct admin_shape admin_shapes[] = {
	{ "ServiceMetadata", "whose and which", service_metadata },
	{ "Listener", "a protocol and port of a service's addresses", listener },
	{ "SessionAffinity", "by client address", affinity },
	{ "HealthCheck", "how backends are probed", health_check },
	{ "IdleTimeout", "when a silent flow ends", idle_timeout },
	{ "Conditions", "as in an EndpointSlice", conditions },
	{ "BackendSpec", "an address that serves listeners", backend_spec },
	{ "ServiceSpec", "what is wanted", service_spec },
	{ "ServiceStatus", "what is", service_status },
	{ "Service", "addresses, listeners, policy and backends", service },
	{ "ServicePatch", "merge patch of a service", service_patch },
	{ "ServiceList", "services by namespace and name", service_list },
	{ "ListMetadata", "of a page", list_metadata },
	{ "Verdicts", "what the verdict on a backend is made of", backend_verdicts },
	{ "Overlay", "an operator's word on a backend", overlay },
	{ "Backend", "a backend of a listener, as it is", backend },
	{ "BackendList", "by service, listener and address", backend_list },
	{ "Drain", "how to drain", drain },
	{ "Nothing", "an empty object", nothing },
	{ "BackendPatch", "the operator's weight", backend_patch },
	{ "Link", "of a port", link_ },
	{ "Port", "a NIC or virtual port", port },
	{ "PortList", "by index", port_list },
	{ "Worker", "one core, one queue of each port", worker },
	{ "ControlCounters", "of the control loop", control_counters },
	{ "WorkerList", "by index", worker_list },
	{ "Drop", "a reason to drop", drop },
	{ "DropList", "every reason, in the order of counters.def", drop_list },
	{ "Flow", "an entry of a flow table", flow },
	{ "FlowList", "in table order", flow_list },
	{ "Event", "of the journal", event_ },
	{ "EventList", "oldest first", event_list },
	{ "Digest", "to compare nodes", digest },
	{ "Reload", "the configuration was read again", reload },
	{ "ClusterResource", "a resource of the API", cluster_resource },
	{ "Kubernetes", "the cluster as it is followed", kubernetes },
	{ "Rates", "of packets", rates },
	{ "System", "the daemon at a glance", system_ },
	{ "Question", "a packet to explain", question },
	{ "Step", "of an explanation", step },
	{ "Explanation", "what would happen to a packet, by the real look-up", explanation },
	{ "Finding", "one thing that is wrong", finding },
	{ "Problem", "RFC 9457", problem },
	{ NULL, NULL, NULL },
};

const struct admin_field admin_params[] = {
	{ .name = "limit",
		.type = ADMIN_INTEGER,
		.min = 1,
		.max = ADMIN_LIMIT_MAX,
		.help = "items of a page, default 100" },
	{ .name = "continue",
		.type = ADMIN_STRING,
		.format = "token",
		.max = 1022,
		.help = "token of the page before" },
	{ .name = "dryRun", .type = ADMIN_BOOLEAN, .help = "check and answer, change nothing" },
	{ .name = "namespace", .type = ADMIN_STRING, .max = 63, .help = "of the service" },
	{ .name = "name", .type = ADMIN_STRING, .max = 63, .help = "of the service" },
	{ .name = "service", .type = ADMIN_STRING, .max = 127, .help = "namespace/name" },
	{ .name = "state", .type = ADMIN_STRING, .allowed = states, .help = "of the backend" },
	{ .name = "managedBy", .type = ADMIN_STRING, .allowed = owners, .help = "owner" },
	{ .name = "address", .type = ADMIN_STRING, .format = "address", .help = "of the backend" },
	{ .name = "vip",
		.type = ADMIN_STRING,
		.format = "address",
		.help = "an address of the service" },
	{ .name = "port",
		.type = ADMIN_INTEGER,
		.min = 1,
		.max = 65535,
		.help = "of the backend; absent = every port" },
	{ .name = "backend",
		.type = ADMIN_STRING,
		.format = "address",
		.help = "address of the backend" },
	{ .name = "client",
		.type = ADMIN_STRING,
		.format = "address",
		.help = "address of the client" },
	{ .name = "after",
		.type = ADMIN_INTEGER,
		.min = 0,
		.max = 999999999999999999,
		.help = "id of the last event known" },
	{ .name = "kind", .type = ADMIN_STRING, .max = 31, .help = "of the event" },
	{ .name = "verbose", .type = ADMIN_BOOLEAN, .help = "list the checks" },
	{ .name = NULL },
};

const struct admin_shape *shape_find(const char *name)
{
	const struct admin_shape *shape = admin_shapes;
	while (shape->name && strcmp(shape->name, name) != 0)
		shape++;
	return shape->name ? shape : NULL;
}

const struct admin_field *param_find(const char *name, size_t len)
{
	const struct admin_field *p = admin_params;
	while (p->name && (strlen(p->name) != len || strncmp(p->name, name, len) != 0))
		p++;
	return p->name ? p : NULL;
}
