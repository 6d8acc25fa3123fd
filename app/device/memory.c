// SPDX-License-Identifier: BSD-3-Clause
// Packet buffers and tables: how much, where, from which pages.
//
// One pool for each NUMA node that has workers: buffers in all receive and transmit rings, in the per-worker caches, and in flight
// between threads (re-steer, wait, punt). Frames from twins have a small pool of their own, so that
// traffic cannot starve routing protocols. Ring sizes of the dataplane are mirrored in IN_FLIGHT.
#include "device_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <numa.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_mbuf_pool_ops.h>

#define CACHE 256
// Of one worker: wait list 1024, punt rings 1024, re-steer and hand-over rings 2048 each, bursts.
#define IN_FLIGHT       8192
#define AF_XDP_BUFFERS  8192 // umem of one queue: fill ring and completion ring of the driver
#define CONTROL_BUFFERS 2047
#define ROOM_MIN        2176u
#define ROOM_MAX        65000u
#define FRAME_OVERHEAD  26u // Ethernet header, two VLAN tags, FCS
#define OBJECT_OVERHEAD (sizeof(struct rte_mbuf) + 2 * RTE_CACHE_LINE_SIZE)
#define SLACK_BYTES     (96ull << 20)

uint32_t memory_frame_room(const struct device_config *config, const struct device_name *names)
{
	uint32_t room = ROOM_MIN;
	for (uint32_t i = 0; i < config->n_ports; i++) {
		uint32_t mtu = config->ports[i].mtu ? config->ports[i].mtu : 1500;
		uint32_t need = mtu + FRAME_OVERHEAD;
		// A buffer smaller than a frame of its ring makes af_packet refuse the queue.
		uint32_t frame = device_name_number(&names[i], "framesz", 0);
		if (need < frame)
			need = frame;
		need = RTE_ALIGN(need + RTE_PKTMBUF_HEADROOM, 64);
		if (room < need)
			room = need;
	}
	return room < ROOM_MAX ? room : ROOM_MAX;
}

static uint64_t estimate_bytes(const struct device_config *config, const struct device_name *names,
	const struct device_plan *plan)
{
	uint64_t n = CONTROL_BUFFERS;
	for (uint32_t i = 0; i < config->n_ports; i++) {
		const struct device_port_config *port = &config->ports[i];
		uint32_t queues = port->queues ? port->queues : device_name_queues(&names[i]);
		if (queues < plan->n_workers)
			queues = plan->n_workers;
		n += 2ull * queues * (port->descriptors ? port->descriptors : DEVICE_DESCRIPTORS);
		if (device_name_is(&names[i], "net_af_xdp"))
			n += (uint64_t)queues * AF_XDP_BUFFERS;
	}
	n += (uint64_t)plan->n_workers * (CACHE * 2 + IN_FLIGHT);
	uint64_t bytes = n * (plan->data_room + OBJECT_OVERHEAD);
	bytes += bytes / 4; // several nodes, rounding of rings
	return bytes + plan->n_workers * config->flow_bytes_per_worker + SLACK_BYTES;
}

int memory_plan(const struct device_config *config, const struct device_name *names,
	const char *root, struct device_plan *plan, struct error *err)
{
	plan->data_room = memory_frame_room(config, names);
	uint64_t need = estimate_bytes(config, names, plan);
	plan->memory_bytes = config->memory_bytes ? config->memory_bytes : need;
	const char *whose = config->memory_bytes ? "memory.size" : "auto";
	unsigned need_mb = (unsigned)(plan->memory_bytes >> 20);
	if (!config->hugepages && !config->hugepages_required) {
		snprintf(plan->memory_reason, sizeof(plan->memory_reason),
			"%s: %u MB, huge pages are switched off", whose, need_mb);
		return 0;
	}
	uint64_t free_bytes = machine_free_hugepage_bytes(root);
	unsigned free_mb = (unsigned)(free_bytes >> 20);
	plan->hugepages = free_bytes >= plan->memory_bytes;
	if (!plan->hugepages && config->hugepages_required)
		return error_add(err, ENOMEM, "memory.hugepages",
			"%u MB needed, %u MB of huge pages are free: reserve with "
			"`sysctl vm.nr_hugepages=%u` or set memory.hugepages = \"off\"",
			need_mb, free_mb, need_mb / 2 + 1);
	snprintf(plan->memory_reason, sizeof(plan->memory_reason),
		"%s: %u MB, %u MB of huge pages free: %s", whose, need_mb, free_mb,
		plan->hugepages ? "used" : "too few, ordinary pages");
	return 0;
}

static uint32_t buffers_of_node(const struct device *d, int numa)
{
	uint32_t n = 0;
	for (uint32_t w = 0; w < d->n_workers; w++)
		n += d->workers[w].numa == numa ? CACHE * 2 + IN_FLIGHT : 0;
	for (uint32_t i = 0; i < d->n_ports; i++) {
		const struct device_port *port = &d->ports[i];
		const struct port_shape *shape = &d->shapes[i];
		for (uint32_t q = 0; q < port->n_rx_queues; q++) {
			if (d->workers[q % d->n_workers].numa != numa)
				continue;
			n += shape->n_descriptors_rx;
			n += device_name_is(&shape->name, "net_af_xdp") ? AF_XDP_BUFFERS : 0;
		}
		// Any worker's buffers may sit in any transmit ring.
		n += (uint32_t)port->n_tx_queues * shape->n_descriptors_tx;
	}
	return n;
}

// Without huge pages DPDK lets no buffer lie across the border of two pages: each has one of 4 KB for itself, and all begin at the same
// place of one. Then the heads of a whole burst share one set of eight lines of the first-level cache, and so do their frames: every
// stage finds them gone. Side by side, an odd number of lines long, they spread over all sets, and over half as many pages.
// Measured (sluice-bench null): 55.9 instead of 69 ns a packet, as with huge pages. Where IO addresses are physical a buffer has to be in one
// page, and for af_xdp too: the kernel refuses a frame across pages.
static bool lies_dense(const struct device *d)
{
	if (d->plan.hugepages || rte_eal_iova_mode() != RTE_IOVA_VA)
		return false;
	for (uint32_t i = 0; i < d->n_ports; i++)
		if (device_name_is(&d->shapes[i].name, "net_af_xdp"))
			return false;
	return true;
}

static void free_chunk(struct rte_mempool_memhdr *chunk, void *mem)
{
	(void)chunk;
	rte_free(mem);
}

// 0 or errno.
static int fill_dense_pool(struct rte_mempool *pool, uint16_t room)
{
	struct rte_pktmbuf_pool_private about = { .mbuf_data_room_size = room };
	size_t each = pool->header_size + pool->elt_size + pool->trailer_size;
	size_t length = pool->size * each;
	int rc = rte_mempool_set_ops_byname(pool, rte_mbuf_best_mempool_ops(), NULL);
	if (rc)
		return -rc;
	rte_pktmbuf_pool_init(pool, &about);
	void *mem = rte_malloc(NULL, length, RTE_MEMPOOL_ALIGN);
	if (mem == NULL)
		return ENOMEM;
	rc = rte_mempool_populate_iova(
		pool, mem, rte_malloc_virt2iova(mem), length, free_chunk, mem);
	if (rc <= 0)
		rte_free(mem);
	if (rc != (int)pool->size)
		return rc < 0 ? -rc : ENOMEM;
	rte_mempool_obj_iter(pool, rte_pktmbuf_init, NULL);
	return 0;
}

// As rte_pktmbuf_pool_create, but dense.
static struct rte_mempool *make_dense_pool(
	const char *name, uint32_t n, uint32_t cache, uint16_t room)
{
	struct rte_mempool *pool =
		rte_mempool_create_empty(name, n, (unsigned)sizeof(struct rte_mbuf) + room, cache,
			sizeof(struct rte_pktmbuf_pool_private), SOCKET_ID_ANY,
			RTE_MEMPOOL_F_NO_IOVA_CONTIG);
	if (pool == NULL)
		return NULL;
	int code = fill_dense_pool(pool, room);
	if (code == 0)
		return pool;
	rte_mempool_free(pool);
	rte_errno = code;
	return NULL;
}

static struct rte_mempool *make_pool(
	struct device *d, const char *name, uint32_t n, uint32_t cache, int numa)
{
	int socket = numa < 0 ? SOCKET_ID_ANY : numa;
	uint16_t room = (uint16_t)d->plan.data_room;
	if (lies_dense(d))
		return make_dense_pool(name, n, cache, room);
	struct rte_mempool *pool = rte_pktmbuf_pool_create(name, n, cache, 0, room, socket);
	if (pool == NULL && socket != SOCKET_ID_ANY)
		pool = rte_pktmbuf_pool_create(name, n, cache, 0, room, SOCKET_ID_ANY);
	return pool;
}

static int refuse_pool(struct device *d, uint32_t n, struct error *err)
{
	int code = rte_errno ? rte_errno : ENOMEM;
	error_add(err, code, "memory.size",
		"%u packet buffers of %u bytes do not fit (%s): raise memory.size or lower "
		"ports[].descriptors",
		n, d->plan.data_room, rte_strerror(code));
	eal_log_attach(&d->eal, 0, err);
	return -code;
}

int memory_make_pools(struct device *d, struct error *err)
{
	d->control_pool = make_pool(d, "sluice-control", CONTROL_BUFFERS, 0, d->plan.control_numa);
	if (d->control_pool == NULL)
		return refuse_pool(d, CONTROL_BUFFERS, err);
	for (uint32_t w = 0; w < d->n_workers; w++) {
		int numa = d->workers[w].numa;
		for (uint32_t other = 0; other < w && d->pools[w] == NULL; other++) {
			if (d->workers[other].numa == numa)
				d->pools[w] = d->pools[other];
		}
		if (d->pools[w])
			continue;
		char name[32];
		snprintf(name, sizeof(name), "sluice-packets-%d", numa);
		uint32_t n = buffers_of_node(d, numa);
		d->pools[w] = make_pool(d, name, n, CACHE, numa);
		if (d->pools[w] == NULL)
			return refuse_pool(d, n, err);
		log_write(d->log, LOG_LEVEL_DEBUG, "memory",
			"%u packet buffers of %u bytes on node %d", n, d->plan.data_room, numa);
	}
	return 0;
}

void memory_free_pools(struct device *d)
{
	for (uint32_t w = 0; w < d->n_workers; w++) {
		struct rte_mempool *pool = d->pools[w];
		for (uint32_t other = w; other < d->n_workers; other++) {
			if (d->pools[other] == pool)
				d->pools[other] = NULL;
		}
		rte_mempool_free(pool);
	}
	rte_mempool_free(d->control_pool);
	d->control_pool = NULL;
}

void *device_alloc(struct device *device, size_t size, int numa)
{
	(void)device; // the EAL is one per process
	int socket = numa < 0 ? SOCKET_ID_ANY : numa;
	void *mem = rte_zmalloc_socket("sluice", size, RTE_CACHE_LINE_SIZE, socket);
	if (mem == NULL && socket != SOCKET_ID_ANY)
		mem = rte_zmalloc_socket("sluice", size, RTE_CACHE_LINE_SIZE, SOCKET_ID_ANY);
	return mem;
}

void device_free(void *mem)
{
	rte_free(mem);
}

// ---------------------------------------------------------------- memory files

// Lengths of files on hugetlbfs are whole pages.
static size_t file_length(int fd, size_t size)
{
	struct statfs fs;
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	if (fstatfs(fd, &fs) == 0 && fs.f_bsize > 0 && (size_t)fs.f_bsize > page)
		page = (size_t)fs.f_bsize;
	return (size + page - 1) / page * page;
}

static int reserve_file(int fd, const char *path, size_t length, bool *out_kept, struct error *err)
{
	struct stat status;
	if (fstat(fd, &status) || !S_ISREG(status.st_mode))
		return error_add(err, EINVAL, "flows.file", "%s is not a regular file", path);
	*out_kept = (size_t)status.st_size == length;
	if (!*out_kept && (ftruncate(fd, 0) || ftruncate(fd, (off_t)length)))
		return error_add(err, errno, "flows.file", "%s cannot be sized to %zu bytes: %s",
			path, length, strerror(errno));
	if (fallocate(fd, 0, 0, (off_t)length) && errno != EOPNOTSUPP)
		return error_add(err, errno, "flows.file", "%s has no room for %zu bytes: %s", path,
			length, strerror(errno));
	return 0;
}

void *device_map(const char *path, size_t *size, int numa, bool *out_kept, struct error *err)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		error_add(
			err, errno, "flows.file", "%s cannot be opened: %s", path, strerror(errno));
		return NULL;
	}
	size_t length = file_length(fd, *size);
	void *mem = MAP_FAILED;
	if (reserve_file(fd, path, length, out_kept, err) == 0) {
		mem = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (mem == MAP_FAILED)
			error_add(err, errno, "flows.file", "%s cannot be mapped: %s", path,
				strerror(errno));
	}
	close(fd);
	if (mem == MAP_FAILED)
		return NULL;
	if (numa >= 0 && numa_available() >= 0)
		numa_tonode_memory(mem, length, numa);
	// Pages are touched now, not by the first packets. Older kernels (before 5.14) touch them later.
	madvise(mem, length, MADV_POPULATE_WRITE);
	*size = length;
	return mem;
}

void device_unmap(void *mem, size_t size)
{
	if (mem)
		munmap(mem, size);
}
