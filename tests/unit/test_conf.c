/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * corosync.conf as csvctl writes and reads it; files that are replaced whole or not at all.
 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "utils/base/prng.h"
#include "utils/tools/csvctl_conf.h"

static void fill(struct conf *c, unsigned n)
{
	memset(c, 0, sizeof(*c));
	strcpy(c->cluster, "c-1");
	strcpy(c->cipher, "aes256");
	strcpy(c->hash, "sha256");
	c->token_ms = 1234;
	c->n = n;
	for (unsigned i = 0; i < n; i++) {
		c->node[i].nodeid = 7 + i;
		snprintf(c->node[i].name, sizeof(c->node[i].name), "node-%u", i);
		c->node[i].n_addrs = 2;
		snprintf(c->node[i].addr[0], sizeof(c->node[i].addr[0]), "198.18.0.%u", i + 1);
		snprintf(c->node[i].addr[1], sizeof(c->node[i].addr[1]), "fd00::%u", i + 1);
	}
}

START_TEST(what_is_written_is_read_alike)
{
	static struct conf c, r;
	struct csv_err err = CSV_ERR_INIT;
	char *text;

	fill(&c, 5);
	strcpy(c.qdevice, "net");
	strcpy(c.qdevice_host, "198.18.9.9");
	text = conf_render(&c, "a note");
	ck_assert_int_eq(conf_parse(text, "x", &r, &err), 0);
	ck_assert_str_eq(r.cluster, "c-1");
	ck_assert_str_eq(r.transport, "knet");
	ck_assert_str_eq(r.provider, "corosync_votequorum");
	ck_assert_str_eq(r.qdevice_host, "198.18.9.9");
	ck_assert_uint_eq(r.token_ms, 1234);
	ck_assert_uint_eq(r.n, 5);
	ck_assert_uint_eq(r.node[4].nodeid, 11);
	ck_assert_str_eq(r.node[4].name, "node-4");
	ck_assert_str_eq(r.node[4].addr[1], "fd00::5");
	ck_assert(conf_has_crypto(&r));
	ck_assert(!r.two_node);
	ck_assert(conf_node_find(&r, "node-2") == &r.node[2]);
	ck_assert(!conf_node_find(&r, "node-5"));
	free(text);
}
END_TEST

START_TEST(encryption_needs_cipher_and_hash)
{
	static const struct { const char *totem; bool on; } t[] = {
		{ "", false }, { "crypto_cipher: aes256", false }, { "crypto_hash: sha256", false }, { "secauth: on", true }, { "secauth: off", false },
		{ "crypto_cipher: aes256\ncrypto_hash: sha256", true }, { "crypto_cipher: none\ncrypto_hash: sha256", false },
		{ "secauth: on\ncrypto_cipher: none", false },
	};
	static struct conf c;
	char text[256];

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		snprintf(text, sizeof(text), "totem {\n%s\n}\n", t[i].totem);
		ck_assert_int_eq(conf_parse(text, "x", &c, NULL), 0);
		ck_assert_msg(conf_has_crypto(&c) == t[i].on, "%s", t[i].totem);
	}
}
END_TEST

START_TEST(what_is_wrong_is_told_with_its_line)
{
	static const struct { const char *text, *says; } t[] = {
		{ "totem {\n", "not closed" }, { "}\n", "line 1: a }" }, { "totem {\nnonsense\n}\n", "line 2" }, { "totem {\ntoken: soon\n}\n", "line 2: token" },
		{ "totem {\ntoken: -1\n}\n", "write a number" }, { "a {\nb {\nc {\nd {\ne {\n", "line 5" },
		{ "totem {\ncluster_name: 01234567890123456789012345678901234567890123456789012345678901234567890\n}\n", "longer than 63" },
		{ "nodelist {\nnode {\nring9_addr: 1.1.1.1\n}\n}\n", "at most 8" },
	};
	static struct conf c;

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct csv_err err = CSV_ERR_INIT;

		ck_assert_msg(conf_parse(t[i].text, "corosync.conf", &c, &err) < 0, "%s", t[i].text);
		ck_assert_msg(strstr(err.text, "corosync.conf: ") == err.text && strstr(err.text, t[i].says), "%s", err.text);
	}
}
END_TEST

START_TEST(any_change_of_a_byte_is_read_or_refused)
{
	static struct conf c, r;
	struct csv_prng p;
	char *text, *copy;
	size_t n;

	fill(&c, 3);
	text = conf_render(&c, NULL);
	n = strlen(text);
	csv_prng_init(&p, (uint64_t)_i + 1);
	for (int k = 0; k < 2000; k++) {
		struct csv_err err = CSV_ERR_INIT;

		copy = strdup(text);
		for (uint64_t m = 1 + csv_prng_below(&p, 4); m; m--)
			copy[csv_prng_below(&p, n)] = (char)csv_prng_below(&p, 256);
		if (conf_parse(copy, "x", &r, &err) < 0)
			ck_assert(err.text[0]);
		else
			ck_assert_uint_le(r.n, CLUSTER_NODES_MAX);
		free(copy);
	}
	free(text);
}
END_TEST

START_TEST(token_grows_with_the_nodes)
{
	static struct conf c;

	fill(&c, 2);
	c.token_ms = 0;
	ck_assert_uint_eq(conf_token_ms(&c), 3000);
	fill(&c, 5);
	ck_assert_uint_eq(conf_token_ms(&c), 1234 + 3 * 650);
}
END_TEST

START_TEST(a_file_is_replaced_on_demand_only)
{
	char dir[] = "/tmp/test-conf.XXXXXX", path[128], old[140], *data = NULL;
	struct csv_err err = CSV_ERR_INIT;
	struct stat st;
	size_t n = 0;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/a/b/file", dir);
	snprintf(old, sizeof(old), "%s.old", path);
	ck_assert_int_eq(conf_file_write(path, "one", 3, 0400, false, &err), 0);
	ck_assert_int_eq(conf_file_write(path, "two", 3, 0400, false, &err), -EEXIST);
	ck_assert_ptr_nonnull(strstr(err.text, path));
	ck_assert_int_eq(conf_file_write(path, "one", 3, 0600, false, &err), 0);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	ck_assert(access(old, F_OK) < 0);
	ck_assert_int_eq(conf_file_write(path, "two", 3, 0400, true, &err), 0);
	ck_assert_int_eq(conf_file_read(path, 100, &data, &n, &err), 0);
	ck_assert_str_eq(data, "two");
	free(data);
	ck_assert_int_eq(conf_file_read(old, 100, &data, &n, &err), 0);
	ck_assert_str_eq(data, "one");
	free(data);
	ck_assert_int_eq(conf_file_read(path, 2, &data, &n, &err), -EFBIG);
	ck_assert_int_eq(unlink(path) | unlink(old), 0);
	snprintf(path, sizeof(path), "%s/a/b", dir);
	ck_assert_msg(!rmdir(path), "something else was left in %s", path);
	snprintf(path, sizeof(path), "%s/a", dir);
	ck_assert_int_eq(rmdir(path) | rmdir(dir), 0);
}
END_TEST

UNIT_MAIN("conf", UNIT_TEST(what_is_written_is_read_alike), UNIT_TEST(encryption_needs_cipher_and_hash),
	  UNIT_TEST(what_is_wrong_is_told_with_its_line), UNIT_LOOP(any_change_of_a_byte_is_read_or_refused, 0, 5),
	  UNIT_TEST(token_grows_with_the_nodes), UNIT_TEST(a_file_is_replaced_on_demand_only))
