/*
 * real_link_auth.c - see real_link_auth.h.
 */
#include "utils/env/real_link_auth.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

#include "utils/base/base.h"
#include "utils/base/cursor.h"

#define MAGIC 0x48565343u	/* "CSVH" */
#define VERSION 1		/* of the hello itself: never to be changed (proto.h, PV1) */
#define KEY_MIN 32
#define KEY_MAX 8192

static void mac(const uint8_t *key, size_t key_len, char role, const void *a, size_t a_len, const void *b, size_t b_len,
		uint8_t *ret)
{
	uint8_t text[1 + KEY_MAX + AUTH_ANSWER_BYTES];
	int rc;

	csv_assert(1 + a_len + b_len <= sizeof(text));
	text[0] = (uint8_t)role;
	memcpy(text + 1, a, a_len);
	memcpy(text + 1 + a_len, b, b_len);
	rc = gnutls_hmac_fast(GNUTLS_MAC_SHA256, key, key_len, text, 1 + a_len + b_len, ret);
	csv_assertf(rc == 0, "HMAC-SHA256: %s", gnutls_strerror(rc));
}

int auth_init(struct auth *a, const char *keyfile, uint64_t lockspace, uint32_t self, struct csv_err *err)
{
	static const char purpose[] = "csvfs mesh 1";
	uint8_t secret[KEY_MAX];
	int fd = open(keyfile, O_RDONLY | O_CLOEXEC), e = errno;
	ssize_t n;

	if (fd < 0)
		return csv_err_set(err, -e, "%s: %s: members prove with it who they are: make it with corosync-keygen and copy it to "
				   "every node", keyfile, strerror(e));
	n = read(fd, secret, sizeof(secret));
	e = errno;
	close(fd);
	if (n < 0)
		return csv_err_set(err, -e, "%s: read: %s", keyfile, strerror(e));
	if (n < KEY_MIN)
		return csv_err_set(err, -EINVAL, "%s: %zd bytes: too short for a key, at least %d are needed: make it with "
				   "corosync-keygen", keyfile, n, KEY_MIN);
	mac(secret, (size_t)n, 'K', purpose, sizeof(purpose), "", 0, a->key);
	gnutls_memset(secret, 0, sizeof(secret));
	a->lockspace = lockspace;
	a->self = self;
	a->mesh = PROTO_MESH;
	a->messages = PROTO_MESSAGES;
	return 0;
}

void auth_derive(const struct auth *a, const char *purpose, uint8_t ret[AUTH_KEY_BYTES])
{
	mac(a->key, sizeof(a->key), 'D', purpose, strlen(purpose), "", 0, ret);
}

static const char *put_head(const struct auth *a, uint32_t peer, uint8_t ret[AUTH_HELLO_BYTES])
{
	struct csv_cursor c;
	uint8_t nonce[AUTH_NONCE_BYTES];

	if (getrandom(nonce, sizeof(nonce), 0) != (ssize_t)sizeof(nonce))
		return "no random numbers";
	csv_cursor_init(&c, ret, AUTH_HELLO_BYTES);
	csv_put_u32(&c, MAGIC);
	csv_put_u16(&c, VERSION);
	csv_put_u16(&c, 0);
	csv_put_u32(&c, a->self);
	csv_put_u32(&c, peer);
	csv_put_u64(&c, a->lockspace);
	csv_put_u16(&c, a->mesh.min);
	csv_put_u16(&c, a->mesh.max);
	csv_put_u16(&c, a->messages.min);
	csv_put_u16(&c, a->messages.max);
	csv_put_bytes(&c, nonce, sizeof(nonce));
	csv_assert(!csv_cur_error(&c) && csv_cur_left(&c) == 0);
	return NULL;
}

/* *ret_from: who it says it is; what it speaks goes to t. */
static const char *check_head(const struct auth *a, const uint8_t *head, struct auth_talk *t, uint32_t *ret_from)
{
	uint16_t range[4];
	struct csv_cursor c;
	uint32_t magic, from, to;
	uint16_t version;
	uint64_t lockspace;

	csv_cursor_init_ro(&c, head, AUTH_HELLO_BYTES);
	magic = csv_cur_u32(&c);
	version = csv_cur_u16(&c);
	csv_cur_skip(&c, 2);
	from = csv_cur_u32(&c);
	to = csv_cur_u32(&c);
	lockspace = csv_cur_u64(&c);
	for (unsigned i = 0; i < ARRAY_SIZE(range); i++)
		range[i] = csv_cur_u16(&c);
	if (magic != MAGIC)
		return "does not speak this protocol";
	if (version != VERSION)
		return "says hello in another version than all do";
	if (lockspace != a->lockspace)
		return "is of another volume";
	if (to != a->self)
		return "looks for another node";
	if (!from || from == a->self)
		return "says that it is this node, or none";
	if (!proto_range_get(range[0], range[1], &t->mesh) || !proto_range_get(range[2], range[3], &t->messages))
		return "says a range of versions that is none";
	*ret_from = from;
	return NULL;
}

const char *auth_hello(const struct auth *a, struct auth_talk *t, uint32_t peer)
{
	t->peer = peer;
	return put_head(a, peer, t->hello);
}

const char *auth_got_hello(const struct auth *a, struct auth_talk *t, const uint8_t hello[AUTH_HELLO_BYTES])
{
	const char *wrong = check_head(a, hello, t, &t->peer);

	if (wrong)
		return wrong;
	memcpy(t->hello, hello, AUTH_HELLO_BYTES);
	wrong = put_head(a, t->peer, t->answer);
	if (wrong)
		return wrong;
	mac(a->key, sizeof(a->key), 'A', t->hello, AUTH_HELLO_BYTES, t->answer, AUTH_HELLO_BYTES, t->answer + AUTH_HELLO_BYTES);
	return NULL;
}

const char *auth_got_answer(const struct auth *a, struct auth_talk *t, const uint8_t answer[AUTH_ANSWER_BYTES],
			    uint8_t ret_proof[AUTH_PROOF_BYTES])
{
	uint8_t want[AUTH_MAC_BYTES];
	uint32_t from;
	const char *wrong = check_head(a, answer, t, &from);

	if (wrong)
		return wrong;
	if (from != t->peer)
		return "is another node than the one we called";
	mac(a->key, sizeof(a->key), 'A', t->hello, AUTH_HELLO_BYTES, answer, AUTH_HELLO_BYTES, want);
	if (gnutls_memcmp(want, answer + AUTH_HELLO_BYTES, sizeof(want)))
		return "does not have the cluster's key";
	memcpy(t->answer, answer, AUTH_ANSWER_BYTES);
	mac(a->key, sizeof(a->key), 'C', t->hello, AUTH_HELLO_BYTES, t->answer, AUTH_ANSWER_BYTES, ret_proof);
	return NULL;
}

const char *auth_got_proof(const struct auth *a, const struct auth_talk *t, const uint8_t proof[AUTH_PROOF_BYTES])
{
	uint8_t want[AUTH_MAC_BYTES];

	mac(a->key, sizeof(a->key), 'C', t->hello, AUTH_HELLO_BYTES, t->answer, AUTH_ANSWER_BYTES, want);
	return gnutls_memcmp(want, proof, sizeof(want)) ? "does not have the cluster's key" : NULL;
}
