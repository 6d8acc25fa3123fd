// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
//
// CRC32c (RFC 9260 appendix A), in three variants with identical results, chosen once.
//
// A CRC is linear: the CRC of (message xor change) is that of the message xor the change's own, begun at 0 and not inverted. A
// change of one 32-bit word followed by zeros to the end is that word, as a polynomial, times x^(8 * bytes from its
// start to the end) mod P. So new ports in a packet of any length cost two multiplications in GF(2) and two table reads, and
// a checksum that was wrong stays as wrong as it was.
//
// Cost of crc32c_shift: 2 carry-less multiplications and 2 crc32 instructions; without PCLMULQDQ two loops of 32 steps. Of
// crc32c_update: 3 cycles for 8 bytes with SSE4.2, one table read a byte without.
#include "packet_priv.h"
#include "crc32c_table_priv.h"

#define CRC32C_POLYNOMIAL 0x82f63b78u

// ---------------------------------------------------------------- scalar
static uint32_t update_scalar(uint32_t crc, const void *bytes, size_t n)
{
	const uint8_t *at = bytes;
	for (size_t i = 0; i < n; i++)
		crc = crc >> 8 ^ crc32c_bytes[(crc ^ at[i]) & 0xff];
	return crc;
}

static inline uint32_t multiply_scalar(uint32_t a, uint32_t b)
{
	uint32_t product = 0;
	for (; a != 0; a <<= 1) { // from x^0 up
		product ^= b & (0u - (a >> 31));
		b = b >> 1 ^ (CRC32C_POLYNOMIAL & (0u - (b & 1)));
	}
	return product;
}

static uint32_t shift_scalar(uint32_t word, uint32_t n)
{
	word = multiply_scalar(word, crc32c_power_low[n & 0xff]);
	return n < 256 ? word : multiply_scalar(word, crc32c_power_high[n >> 8]);
}

// ---------------------------------------------------------------- x86
#ifdef __x86_64__
#include <immintrin.h>

#define TARGET_SSE42  __attribute__((target("sse4.2")))
#define TARGET_PCLMUL __attribute__((target("sse4.2,pclmul")))

TARGET_SSE42 static uint32_t update_sse42(uint32_t crc, const void *bytes, size_t n)
{
	const uint8_t *at = bytes;
	uint64_t wide = crc, word;
	for (; n >= sizeof(word); n -= sizeof(word), at += sizeof(word)) {
		memcpy(&word, at, sizeof(word));
		wide = _mm_crc32_u64(wide, word);
	}
	crc = (uint32_t)wide;
	for (; n > 0; n--)
		crc = _mm_crc32_u8(crc, *at++);
	return crc;
}

TARGET_PCLMUL static inline uint32_t multiply_pclmul(uint32_t a, uint32_t b)
{
	__m128i both = _mm_clmulepi64_si128(
		_mm_cvtsi32_si128((int32_t)a), _mm_cvtsi32_si128((int32_t)b), 0);
	// 63 bits: x^62 is bit 0. One up, and x^0 is bit 63; then the lower half, x^63 to x^32, is reduced.
	uint64_t product = (uint64_t)_mm_cvtsi128_si64(both) << 1;
	return _mm_crc32_u32(0, (uint32_t)product) ^ (uint32_t)(product >> 32);
}

TARGET_PCLMUL static uint32_t shift_pclmul(uint32_t word, uint32_t n)
{
	word = multiply_pclmul(word, crc32c_power_low[n & 0xff]);
	return n < 256 ? word : multiply_pclmul(word, crc32c_power_high[n >> 8]);
}

static bool has_sse42(void)
{
	return __builtin_cpu_supports("sse4.2");
}

static bool has_pclmul(void)
{
	return has_sse42() && __builtin_cpu_supports("pclmul");
}
#endif

// ---------------------------------------------------------------- the choice
static bool always(void)
{
	return true;
}

static const struct crc32c_variant {
	const char *name;
	uint32_t (*update)(uint32_t crc, const void *bytes, size_t n);
	uint32_t (*shift)(uint32_t word, uint32_t n);
	bool (*runs_here)(void);
} variants[] = { // fastest first
#ifdef __x86_64__
	{ "pclmul", update_sse42, shift_pclmul, has_pclmul },
	{ "sse4.2", update_sse42, shift_scalar, has_sse42 },
#endif
	{ "scalar", update_scalar, shift_scalar, always }
};

// A mutable global in lib/ (against design rule 1), as in lib/flow/lookup.c and for its reason: it is the processor's
// property, written before threads start, and any value gives the same results.
static const struct crc32c_variant *chosen = &variants[ARRAY_SIZE(variants) - 1];

const char *packet_select_variant(const char *name)
{
	for (uint32_t i = 0; i < ARRAY_SIZE(variants); i++) {
		if ((name != NULL && strcmp(name, variants[i].name) != 0) ||
			!variants[i].runs_here())
			continue;
		chosen = &variants[i];
		return variants[i].name;
	}
	return NULL;
}

uint32_t crc32c_update(uint32_t crc, const void *bytes, size_t n)
{
	return chosen->update(crc, bytes, n);
}

uint32_t crc32c_shift(uint32_t word, uint32_t n)
{
	return chosen->shift(word, n);
}
