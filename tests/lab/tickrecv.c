/*
 * tickrecv - stamps from outside what a test guest says on its serial port.
 *
 * usage: tickrecv SOCKET LOG
 * Listens on the unix stream socket SOCKET; every QEMU that carries the guest (the one it is
 * migrated from, and the one it is migrated to) connects there with its serial port.  Each line is
 * stamped with CLOCK_MONOTONIC when it arrives and written to LOG as "<ns> <connection> <line>".
 * Commands come on stdin, one a line; each gets one line of JSON on stdout: mark NAME remember the
 * present time ticks N TIMEOUT_MS      answer when N further ticks have arrived line TEXT
 * TIMEOUT_MS    answer when a line that begins with TEXT has arrived (also in the past); no blanks
 * in TEXT record N TIMEOUT_MS     answer when the guest has said that record N, or a later one, is
 * durable gap FROM TO             the silences between two marks, longest first report all there
 * was so far End of stdin: prints the report and ends.
 *
 * Invariants
 * - A gap is the time between two arrivals, or between the last arrival and the end of the window
 * when nothing follows.
 * - A tick or record number that arrives twice is counted as doubled, whichever connection it came
 * over.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define CONNS_MAX  32
#define MARKS_MAX  4096
#define GAPS_SHOWN 8

struct tick {
	int64_t at_ns;
	uint64_t number;
	int conn;
};

struct gap {
	int64_t start_ns;
	int64_t len_ns;
	uint64_t from_tick;
	uint64_t to_tick; /* 0: nothing followed */
	int from_conn;
	int to_conn;
};

struct conn {
	int fd;
	int id;
	size_t fill;
	char line[512];
};

struct mark {
	char name[64];
	int64_t at_ns;
};

enum want { WANT_NOTHING, WANT_TICKS, WANT_LINE, WANT_RECORD };

struct recv {
	FILE *log;
	int listen_fd;
	int conns_seen;
	struct conn conns[CONNS_MAX];
	size_t n_conns;
	struct tick *ticks;
	size_t n_ticks, cap_ticks;
	uint8_t *records; /* times each number was said */
	uint64_t cap_records, max_record, n_records, doubled_records;
	uint64_t max_tick, doubled_ticks;
	uint64_t n_errors;
	char first_error[128];
	struct mark marks[MARKS_MAX];
	size_t n_marks;
	/* the one command that waits */
	enum want want;
	uint64_t want_number;
	char want_text[128];
	int64_t want_until_ns;
	/* lines seen, for `line` asked afterwards */
	char **lines;
	size_t n_lines, cap_lines;
};

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void die(const char *what, const char *object)
{
	fprintf(stderr, "tickrecv: %s: %s: %s\n", object, what, strerror(errno));
	exit(1);
}

static void *grow(void *p, size_t n)
{
	p = realloc(p, n);
	if (!p)
		die("out of memory", "ticks");
	return p;
}

static void tick_add(struct recv *r, int conn, uint64_t number, int64_t at)
{
	if (r->n_ticks == r->cap_ticks) {
		r->cap_ticks = r->cap_ticks ? 2 * r->cap_ticks : 65536;
		r->ticks = grow(r->ticks, r->cap_ticks * sizeof(*r->ticks));
	}
	r->ticks[r->n_ticks++] = (struct tick){.at_ns = at, .number = number, .conn = conn};
	if (number <= r->max_tick)
		r->doubled_ticks++;
	else
		r->max_tick = number;
}

static void record_add(struct recv *r, uint64_t number)
{
	if (number == 0 || number > 100000000)
		return;
	if (number >= r->cap_records) {
		uint64_t cap = r->cap_records ? r->cap_records : 65536;

		while (cap <= number)
			cap *= 2;
		r->records = grow(r->records, cap);
		memset(r->records + r->cap_records, 0, cap - r->cap_records);
		r->cap_records = cap;
	}
	if (r->records[number]++)
		r->doubled_records++;
	else
		r->n_records++;
	if (number > r->max_record)
		r->max_record = number;
}

/* Ticks and records are not kept as text: the log has them. */
static void line_add(struct recv *r, const struct conn *c, int64_t at)
{
	unsigned long long n;

	fprintf(r->log, "%lld %d %s\n", (long long)at, c->id, c->line);
	if (sscanf(c->line, "T %llu", &n) == 1) {
		tick_add(r, c->id, n, at);
		return;
	}
	if (sscanf(c->line, "R %llu", &n) == 1) {
		record_add(r, n);
		return;
	}
	if (c->line[0] == 'E' && !r->n_errors++)
		snprintf(r->first_error, sizeof(r->first_error), "%.100s", c->line);
	if (r->n_lines == r->cap_lines) {
		r->cap_lines = r->cap_lines ? 2 * r->cap_lines : 256;
		r->lines = grow(r->lines, r->cap_lines * sizeof(*r->lines));
	}
	r->lines[r->n_lines] = strdup(c->line);
	if (r->lines[r->n_lines])
		r->n_lines++;
}

/* Text of a guest in JSON: printable ASCII without quote and backslash */
static void json_text(const char *text)
{
	putchar('"');
	for (; *text; text++)
		putchar(*text < 32 || *text > 126 || *text == '"' || *text == '\\' ? '?' : *text);
	putchar('"');
}

/* Returns 0 when the peer is gone */
static int conn_read(struct recv *r, struct conn *c)
{
	char buf[4096];
	ssize_t n = read(c->fd, buf, sizeof(buf));
	int64_t at = now_ns();

	if (n <= 0)
		return n < 0 && errno == EINTR;
	for (ssize_t i = 0; i < n; i++) {
		if (buf[i] == '\r')
			continue;
		if (buf[i] != '\n') {
			if (c->fill < sizeof(c->line) - 1)
				c->line[c->fill++] = buf[i];
			continue;
		}
		c->line[c->fill] = '\0';
		if (c->fill)
			line_add(r, c, at);
		c->fill = 0;
	}
	return 1;
}

static const struct mark *mark_find(const struct recv *r, const char *name)
{
	for (size_t i = r->n_marks; i-- > 0;)
		if (!strcmp(r->marks[i].name, name))
			return &r->marks[i];
	return NULL;
}

static int gap_longer(const void *a, const void *b)
{
	const struct gap *x = a, *y = b;

	return (x->len_ns < y->len_ns) - (x->len_ns > y->len_ns);
}

static void gap_print(struct recv *r, const char *from, const char *to)
{
	const struct mark *a = mark_find(r, from), *b = mark_find(r, to);
	struct gap *gaps;
	size_t n = 0, ticks = 0;

	if (!a || !b) {
		printf("{\"ok\":false,\"error\":\"no mark '%s'\"}\n", a ? to : from);
		return;
	}
	gaps = grow(NULL, (r->n_ticks + 1) * sizeof(*gaps));
	for (size_t i = 0; i < r->n_ticks; i++) {
		const struct tick *t = &r->ticks[i], *next = i + 1 < r->n_ticks ? t + 1 : NULL;
		int64_t end = next ? next->at_ns : b->at_ns;

		ticks += t->at_ns >= a->at_ns && t->at_ns <= b->at_ns;
		if (end <= a->at_ns || t->at_ns >= b->at_ns)
			continue;
		gaps[n++] = (struct gap){
			.start_ns = t->at_ns,
			.len_ns = end - t->at_ns,
			.from_tick = t->number,
			.from_conn = t->conn,
			.to_tick = next ? next->number : 0,
			.to_conn = next ? next->conn : 0,
		};
	}
	qsort(gaps, n, sizeof(*gaps), gap_longer);
	printf("{\"ok\":%s,\"window_ms\":%.3f,\"ticks\":%zu,\"longest_ms\":%.3f,\"median_ms\":%.3f,\"gaps\":[",
	       n ? "true" : "false", (double)(b->at_ns - a->at_ns) / 1e6, ticks,
	       n ? (double)gaps[0].len_ns / 1e6 : 0.0, n ? (double)gaps[n / 2].len_ns / 1e6 : 0.0);
	for (size_t i = 0; i < n && i < GAPS_SHOWN; i++)
		printf("%s{\"start_ms\":%.3f,\"ms\":%.3f,\"from_tick\":%llu,\"to_tick\":%llu,\"from_conn\":%d,\"to_conn\":%d}",
		       i ? "," : "", (double)(gaps[i].start_ns - a->at_ns) / 1e6,
		       (double)gaps[i].len_ns / 1e6, (unsigned long long)gaps[i].from_tick,
		       (unsigned long long)gaps[i].to_tick, gaps[i].from_conn, gaps[i].to_conn);
	printf("]}\n");
	free(gaps);
}

static void report_print(const struct recv *r)
{
	printf("{\"ok\":true,\"connections\":%d,\"ticks\":%zu,\"ticks_lost\":%llu,\"ticks_doubled\":%llu,"
	       "\"records\":%llu,\"record_max\":%llu,\"records_unsaid\":%llu,\"records_doubled\":%llu,"
	       "\"errors\":%llu,\"first_error\":",
	       r->conns_seen, r->n_ticks,
	       (unsigned long long)(r->n_ticks ? r->max_tick - r->ticks[0].number + 1 +
							 r->doubled_ticks - r->n_ticks
					       : 0),
	       (unsigned long long)r->doubled_ticks, (unsigned long long)r->n_records,
	       (unsigned long long)r->max_record,
	       (unsigned long long)(r->max_record - r->n_records),
	       (unsigned long long)r->doubled_records, (unsigned long long)r->n_errors);
	json_text(r->first_error);
	printf("}\n");
}

static int line_seen(const struct recv *r, const char *text)
{
	for (size_t i = 0; i < r->n_lines; i++)
		if (!strncmp(r->lines[i], text, strlen(text)))
			return 1;
	return 0;
}

static void want_check(struct recv *r)
{
	int met = (r->want == WANT_TICKS && r->n_ticks >= r->want_number) ||
		  (r->want == WANT_RECORD && r->max_record >= r->want_number) ||
		  (r->want == WANT_LINE && line_seen(r, r->want_text));

	if (r->want == WANT_NOTHING || (!met && now_ns() < r->want_until_ns))
		return;
	r->want = WANT_NOTHING;
	printf("{\"ok\":%s,\"ticks\":%zu,\"record_max\":%llu,\"errors\":%llu,\"first_error\":",
	       met ? "true" : "false", r->n_ticks, (unsigned long long)r->max_record,
	       (unsigned long long)r->n_errors);
	json_text(r->first_error);
	printf("}\n");
}

static void command(struct recv *r, char *text)
{
	char verb[16] = "", a[128] = "", b[64] = "";

	sscanf(text, "%15s %127s %63s", verb, a, b);
	if (!strcmp(verb, "mark") && a[0] && r->n_marks < MARKS_MAX) {
		struct mark *m = &r->marks[r->n_marks++];

		snprintf(m->name, sizeof(m->name), "%.63s", a);
		m->at_ns = now_ns();
		printf("{\"ok\":true,\"at_ns\":%lld}\n", (long long)m->at_ns);
	} else if (!strcmp(verb, "gap")) {
		gap_print(r, a, b);
	} else if (!strcmp(verb, "report")) {
		fflush(r->log); /* who asks will read it */
		report_print(r);
	} else if ((!strcmp(verb, "ticks") || !strcmp(verb, "record") || !strcmp(verb, "line")) &&
		   b[0]) {
		r->want = verb[0] == 't' ? WANT_TICKS : verb[0] == 'r' ? WANT_RECORD : WANT_LINE;
		r->want_number = strtoull(a, NULL, 10) + (verb[0] == 't' ? r->n_ticks : 0);
		snprintf(r->want_text, sizeof(r->want_text), "%s", a);
		r->want_until_ns = now_ns() + (int64_t)strtoll(b, NULL, 10) * 1000000;
	} else {
		printf("{\"ok\":false,\"error\":\"unknown command\"}\n");
	}
}

static void accept_one(struct recv *r)
{
	int fd = accept4(r->listen_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	if (r->n_conns == CONNS_MAX) {
		close(fd);
		return;
	}
	r->conns[r->n_conns++] = (struct conn){.fd = fd, .id = ++r->conns_seen};
}

static void loop(struct recv *r)
{
	static char in[4096];
	size_t in_fill = 0;

	for (;;) {
		struct pollfd p[2 + CONNS_MAX] = {{.fd = 0, .events = POLLIN},
						  {.fd = r->listen_fd, .events = POLLIN}};
		int timeout = -1;

		for (size_t i = 0; i < r->n_conns; i++)
			p[2 + i] = (struct pollfd){.fd = r->conns[i].fd, .events = POLLIN};
		if (r->want != WANT_NOTHING) {
			int64_t left = r->want_until_ns - now_ns();

			timeout = left <= 0 ? 0 : (int)(left / 1000000 + 1);
			p[0].fd = -1; /* one command at a time */
		}
		if (poll(p, 2 + (nfds_t)r->n_conns, timeout) < 0 && errno != EINTR)
			die("poll", "sockets");
		for (size_t i = r->n_conns; i-- > 0;) {
			if (!p[2 + i].revents || conn_read(r, &r->conns[i]))
				continue;
			close(r->conns[i].fd);
			r->conns[i] = r->conns[--r->n_conns];
		}
		if (p[1].revents & POLLIN)
			accept_one(r);
		want_check(r);
		if (p[0].revents) {
			ssize_t n = read(0, in + in_fill, sizeof(in) - in_fill - 1);

			if (n <= 0 || in_fill + (size_t)n >= sizeof(in) - 1)
				break;
			in_fill += (size_t)n;
			in[in_fill] = '\0';
		}
		for (char *end; r->want == WANT_NOTHING && (end = strchr(in, '\n'));
		     want_check(r)) {
			*end++ = '\0';
			command(r, in);
			in_fill -= (size_t)(end - in);
			memmove(in, end, in_fill + 1);
		}
		fflush(stdout);
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	struct sched_param sp = {.sched_priority = 20};
	static struct recv r;

	if (argc != 3 || strlen(argv[1]) >= sizeof(sa.sun_path)) {
		fprintf(stderr,
			"usage: tickrecv SOCKET LOG (a socket path has at most %zu characters)\n",
			sizeof(sa.sun_path) - 1);
		return 2;
	}
	r.log = fopen(argv[2], "w");
	if (!r.log)
		die("cannot be written", argv[2]);
	memcpy(sa.sun_path, argv[1], strlen(argv[1]) + 1);
	unlink(argv[1]);
	r.listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (r.listen_fd < 0 || bind(r.listen_fd, (void *)&sa, sizeof(sa)) ||
	    listen(r.listen_fd, 16))
		die("cannot be listened on", argv[1]);
	/* A receiver that is late would report its own pauses; without the right to be early it
	 * does its best. */
	(void)mlockall(MCL_CURRENT | MCL_FUTURE);
	(void)sched_setscheduler(0, SCHED_FIFO, &sp);
	printf("{\"ok\":true,\"socket\":\"listening\"}\n");
	fflush(stdout);
	loop(&r);
	report_print(&r);
	fflush(stdout);
	fclose(r.log);
	unlink(argv[1]);
	return 0;
}
