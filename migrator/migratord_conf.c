/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * migratord_conf.c - command line, corosync's node list, the incarnation of the node.
 *
 * The incarnation of a node lives in /run: it is new at boot by itself, and made anew when the others purged the node; a daemon's
 * restart keeps it.
 */
#include "migrator/migratord_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <ifaddrs.h>
#include <inttypes.h>
#include <limits.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <corosync/cmap.h>

#include "config.h"
#include "hvhost/agent.h"
#include "utils/base/base.h"
#include "utils/base/text.h"

static const char usage[] =
	"usage: migratord [OPTION...]\n"
	"The coordinator of a node: carries the right to run of virtual machines between the nodes, starts, moves and recovers them.\n"
	"Runs in the foreground and logs to standard error. The node must be in a corosync cluster.\n"
	"\n"
	"  --fence FILE         which fence agent switches which node (default /etc/csvfs/fence.conf)\n"
	"  --agent SOCKET       where hvhostd listens (default " AGENT_SOCKET ")\n"
	"  --state DIR          where the event log is kept, and which nodes are drained (default /var/lib/csvfs)\n"
	"  --parallel N         migrations of one node at once (default 1)\n"
	"  --bandwidth BITS     limit of one migration, bits a second, or with K, M, G (default: none)\n"
	"  --downtime MS        the pause that a migration aims at (default 30)\n"
	"  --pause-budget MS    the longest pause it may take to get through at all (default 500)\n"
	"  --throttle PERCENT   how far a guest may be slowed down that changes its memory too fast, 0: not at all (default 80)\n"
	"  --debug              log more\n"
	"  --help, --version\n"
	"\n"
	"See migratord(8), csvctl(8), fence.conf(5).\n";

static int number(const char *name, const char *s, unsigned long min, unsigned long max, unsigned *ret, struct csv_err *err)
{
	char *end;
	unsigned long v = strtoul(s, &end, 10);

	if (*end || end == s || v < min || v > max)
		return csv_err_set(err, -EINVAL, "--%s %s: must be a number from %lu to %lu", name, s, min, max);
	*ret = (unsigned)v;
	return 0;
}

int migratord_options_parse(int argc, char **argv, struct migratord_options *ret, struct csv_err *err)
{
	static const struct option opts[] = {
		{ "fence", required_argument, NULL, 'f' }, { "agent", required_argument, NULL, 'a' }, { "state", required_argument, NULL, 's' },
		{ "parallel", required_argument, NULL, 'p' }, { "bandwidth", required_argument, NULL, 'b' },
		{ "downtime", required_argument, NULL, 'd' }, { "pause-budget", required_argument, NULL, 'g' },
		{ "throttle", required_argument, NULL, 't' },
		{ "debug", no_argument, NULL, 'D' }, { "help", no_argument, NULL, 'h' }, { "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	int c, rc = 0;

	*ret = (struct migratord_options){ .fence_conf = "/etc/csvfs/fence.conf", .agent = AGENT_SOCKET, .state_dir = "/var/lib/csvfs",
					   .parallel = 1, .downtime_ms = 30, .budget_ms = 500, .throttle_percent = 80 };
	opterr = 0;
	while (!rc && (c = getopt_long(argc, argv, "h", opts, NULL)) != -1) {
		switch (c) {
		case 'f': ret->fence_conf = optarg; break;
		case 'a': ret->agent = optarg; break;
		case 's': ret->state_dir = optarg; break;
		case 'p': rc = number("parallel", optarg, 1, 64, &ret->parallel, err); break;
		case 'd': rc = number("downtime", optarg, 1, 60000, &ret->downtime_ms, err); break;
		case 'g': rc = number("pause-budget", optarg, 1, 60000, &ret->budget_ms, err); break;
		case 't': rc = number("throttle", optarg, 0, 99, &ret->throttle_percent, err); break;
		case 'b':
			if (csv_size_parse(optarg, &ret->bandwidth_bps))
				rc = csv_err_set(err, -EINVAL, "--bandwidth %s: must be a number, or one with K, M or G", optarg);
			break;
		case 'D': ret->debug = true; break;
		case 'h': fputs(usage, stdout); return 1;
		case 'V': printf("migratord %s\n", PACKAGE_VERSION); return 1;
		default: rc = csv_err_set(err, -EINVAL, "%s: unknown option, or its value is missing; see: migratord --help", argv[optind - 1]);
		}
	}
	if (!rc && optind < argc)
		rc = csv_err_set(err, -EINVAL, "%s: unexpected; see: migratord --help", argv[optind]);
	return rc;
}

/* ---- corosync's node list ---------------------------------------------------------------------------------------------------------------- */

static bool read_node(cmap_handle_t h, unsigned i, struct mig_node *ret)
{
	char key[CMAP_KEYNAME_MAXLEN + 1], *text = NULL;
	uint32_t id;

	memset(ret, 0, sizeof(*ret));
	snprintf(key, sizeof(key), "nodelist.node.%u.nodeid", i);
	if (cmap_get_uint32(h, key, &id) != CS_OK || !id)
		return false;
	ret->nodeid = id;
	snprintf(key, sizeof(key), "nodelist.node.%u.name", i);
	if (cmap_get_string(h, key, &text) == CS_OK)
		snprintf(ret->name, sizeof(ret->name), "%s", text);
	else
		snprintf(ret->name, sizeof(ret->name), "node%u", id);
	free(text);
	for (unsigned r = 0; r < MIG_ADDRS_MAX; r++) {
		snprintf(key, sizeof(key), "nodelist.node.%u.ring%u_addr", i, r);
		if (cmap_get_string(h, key, &text) != CS_OK)
			continue;
		snprintf(ret->addr[ret->n_addrs++], sizeof(ret->addr[0]), "%s", text);
		free(text);
	}
	return true;
}

static int by_id(const void *a, const void *b)
{
	const struct mig_node *x = a, *y = b;

	return x->nodeid < y->nodeid ? -1 : x->nodeid > y->nodeid;
}

static int read_nodes(struct mig_config *c, struct csv_err *err)
{
	cmap_handle_t h;

	if (cmap_initialize(&h) != CS_OK)
		return csv_err_set(err, -ECONNREFUSED, "corosync: is it running? systemctl start corosync");
	for (unsigned i = 0; i < CLUSTER_NODES_MAX * 2 && c->n_nodes < CLUSTER_NODES_MAX; i++)
		if (read_node(h, i, &c->node[c->n_nodes]))
			c->n_nodes++;
	cmap_finalize(h);
	if (!c->n_nodes)
		return csv_err_set(err, -EINVAL, "corosync.conf: it has no node list; every node needs nodeid, name and ring0_addr");
	qsort(c->node, c->n_nodes, sizeof(c->node[0]), by_id);
	return 0;
}

/* Megabits of the interface that has the address; 0: unknown. */
static uint64_t link_speed(const char *addr)
{
	struct ifaddrs *all, *i;
	char text[INET6_ADDRSTRLEN], path[128];
	long mbit = 0;
	FILE *f;

	if (getifaddrs(&all))
		return 0;
	for (i = all; i; i = i->ifa_next) {
		if (!i->ifa_addr || (i->ifa_addr->sa_family != AF_INET && i->ifa_addr->sa_family != AF_INET6))
			continue;
		if (getnameinfo(i->ifa_addr, i->ifa_addr->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6), text,
				sizeof(text), NULL, 0, NI_NUMERICHOST) || strcmp(text, addr))
			continue;
		snprintf(path, sizeof(path), "/sys/class/net/%s/speed", i->ifa_name);
		f = fopen(path, "re");
		if (f && fscanf(f, "%ld", &mbit) != 1)
			mbit = 0;
		if (f)
			fclose(f);
		break;
	}
	freeifaddrs(all);
	return mbit > 0 ? (uint64_t)mbit * 1000000 : 0;
}

/* ---- incarnation --------------------------------------------------------------------------------------------------------------------------- */

static int incarnation_write(uint64_t inc)
{
	char tmp[] = INCARNATION_PATH ".new", text[32];
	int fd, n = snprintf(text, sizeof(text), "%016" PRIx64 "\n", inc), rc = 0;

	if (mkdir(RUN_DIR, 0755) && errno != EEXIST)
		return -errno;
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	if (write(fd, text, (size_t)n) != n)
		rc = -EIO;
	close(fd);
	if (!rc && rename(tmp, INCARNATION_PATH))
		rc = -errno;
	return rc;
}

int migratord_incarnation_new(struct rnd_port *rnd, bool left)
{
	uint64_t inc = 0;
	int fd = left ? open(LEFT_PATH, O_WRONLY | O_CREAT | O_CLOEXEC, 0644) : -1;

	if (left && fd < 0)
		return -errno;
	if (fd >= 0)
		close(fd);
	while (!inc)
		inc = rnd->u64(rnd);
	return incarnation_write(inc);
}

static int incarnation_read(struct rnd_port *rnd, uint64_t *ret, struct csv_err *err)
{
	FILE *f;
	int rc;

	for (int tries = 0; tries < 2; tries++) {
		f = fopen(INCARNATION_PATH, "re");
		rc = f ? fscanf(f, "%16" SCNx64, ret) : 0;
		if (f)
			fclose(f);
		if (rc == 1 && *ret)
			return 0;
		rc = migratord_incarnation_new(rnd, false);
		if (rc)
			return csv_err_set(err, rc, "%s: cannot be written: %s", INCARNATION_PATH, strerror(-rc));
	}
	return csv_err_set(err, -EIO, "%s: cannot be read back", INCARNATION_PATH);
}

/* ---- all of it ------------------------------------------------------------------------------------------------------------------------------ */

int migratord_config_read(const struct migratord_options *o, struct rnd_port *rnd, struct mig_config *ret, struct csv_err *err)
{
	struct cluster_facts f;
	int rc = cluster_facts_read(&f, err);

	memset(ret, 0, sizeof(*ret));
	if (rc)
		return rc;
	if (f.two_node && !f.has_qdevice)
		return csv_err_set(err, -EINVAL, "corosync.conf: two_node: 1 makes both halves of a split quorate, and each would run the other's VMs; "
				   "remove it, or configure a quorum device (corosync-qdevice) as the third vote");
	ret->self = f.self;
	ret->left = !access(LEFT_PATH, F_OK);
	snprintf(ret->cluster_name, sizeof(ret->cluster_name), "%s", f.cluster_name);
	ret->parallel = o->parallel;
	ret->bandwidth_bps = o->bandwidth_bps;
	ret->downtime_ms = o->downtime_ms;
	ret->pause_budget_ms = csv_max(o->budget_ms, o->downtime_ms);
	ret->throttle_percent = o->throttle_percent;
	rc = read_nodes(ret, err);
	if (!rc)
		rc = incarnation_read(rnd, &ret->incarnation, err);
	for (unsigned i = 0; !rc && i < ret->n_nodes; i++)
		if (ret->node[i].nodeid == ret->self && ret->node[i].n_addrs)
			ret->link_bps = link_speed(ret->node[i].addr[0]);
	return rc;
}
