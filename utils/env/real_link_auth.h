/*
 * real_link_auth.h - who is at the other end: mutual challenge and response under a key derived from corosync's authkey.
 *
 *	connector                                        acceptor
 *	HELLO  version, from, to, lockspace, nonce  -->
 *	                                            <--  ANSWER  version, from, to, lockspace, nonce, mac("A", HELLO, ANSWER)
 *	PROOF  mac("C", HELLO, ANSWER)              -->
 *
 * Both macs cover both nonces and both names, so neither can be replayed or reflected.  It says who connected; hiding and sealing what follows
 * is TLS's part, inside of which it is spoken (real_link_tls.h; without TLS the links belong on a network of their own).
 *
 * HELLO and ANSWER carry the ranges of versions that their sender speaks (proto.h) in words that were zero before there were any.  Whether
 * there is a common one is looked at after the proof: then it is a member who says it, and both ends know the other's range.
 *
 * Pure: bytes in, bytes out.  Any thread.
 */
#ifndef CSVFS_UTILS_ENV_REAL_LINK_AUTH_H
#define CSVFS_UTILS_ENV_REAL_LINK_AUTH_H

#include <stddef.h>
#include <stdint.h>

#include "utils/base/err.h"
#include "utils/env/proto.h"

#define AUTH_NONCE_BYTES 32
#define AUTH_MAC_BYTES 32
#define AUTH_KEY_BYTES 32
#define AUTH_HELLO_BYTES 64
#define AUTH_ANSWER_BYTES (AUTH_HELLO_BYTES + AUTH_MAC_BYTES)
#define AUTH_PROOF_BYTES AUTH_MAC_BYTES

struct auth {
	uint8_t key[AUTH_KEY_BYTES];
	uint64_t lockspace;
	uint32_t self;
	struct proto_range mesh, messages;	/* what we speak; zeros: as who came before there were ranges */
};

/* One connection's exchange, kept until it is through. */
struct auth_talk {
	uint32_t peer;				/* who we want, or who it says it is */
	struct proto_range mesh, messages;	/* what it speaks; to be believed after the proof */
	uint8_t hello[AUTH_HELLO_BYTES];
	uint8_t answer[AUTH_ANSWER_BYTES];
};

/* Reads the key file; the ranges are this build's.  0 or -errno with err set. */
int auth_init(struct auth *a, const char *keyfile, uint64_t lockspace, uint32_t self, struct csv_err *err);

/* A key for another purpose, from this one. */
void auth_derive(const struct auth *a, const char *purpose, uint8_t ret[AUTH_KEY_BYTES]);

/* Each returns NULL, or what is wrong (a literal); the bytes to send are in t->hello, t->answer, ret_proof. */
const char *auth_hello(const struct auth *a, struct auth_talk *t, uint32_t peer);
const char *auth_got_hello(const struct auth *a, struct auth_talk *t, const uint8_t hello[AUTH_HELLO_BYTES]);
const char *auth_got_answer(const struct auth *a, struct auth_talk *t, const uint8_t answer[AUTH_ANSWER_BYTES],
			    uint8_t ret_proof[AUTH_PROOF_BYTES]);
const char *auth_got_proof(const struct auth *a, const struct auth_talk *t, const uint8_t proof[AUTH_PROOF_BYTES]);

#endif
