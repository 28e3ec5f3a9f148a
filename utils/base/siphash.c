/* SPDX-License-Identifier: GPL-2.0-only */
/* libsodium's shorthash needs no sodium_init(): it has neither state nor run-time dispatch. */
#include "utils/base/siphash.h"

#include <sodium/crypto_shorthash.h>

csv_static_assert(CSV_SIPHASH_KEY_BYTES == crypto_shorthash_KEYBYTES, "SipHash key");

uint64_t csv_siphash(const uint8_t key[static CSV_SIPHASH_KEY_BYTES], const void *p,
		     size_t size_bytes)
{
	struct le64 out;

	csv_assert_size(struct le64, crypto_shorthash_BYTES);
	crypto_shorthash(out.b, p, size_bytes, key);
	return le64_get(out);
}
