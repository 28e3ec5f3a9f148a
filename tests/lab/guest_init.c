/*
 * guest_init - first and only program of the test guest (static; /init of the initramfs).
 *
 * It loads the modules listed in /modules (one path a line, in order), then runs two processes:
 *  - the ticker writes "T <n> <guest-ms>" to the serial port every csv.tick_ms; who stamps the
 * arrivals outside the guest sees how long the guest stood still, which the guest itself cannot,
 * for its clock stands with it;
 *  - the recorder writes numbered blocks to csv.rec_dev, one after the other, and says "R <n>" on
 * the serial port only after the block is durable.  A number that was said and is not on the disk
 * is lost; a number said twice was executed twice. Other lines: "B <text>" while booting, "E
 * <text>" for an error, "F <n>" when the area is full.
 *
 *  - with csv.tcp, the talker holds one TCP connection and sends "<n> <chain> <record>" over it every csv.tick_ms, where chain is made of
 * the one before and record is the last durable one: a receiver outside sees every loss, doubling, pause and break. Then ticks and
 * records are not said on the serial port;
 *  - with csv.wit_off, the witness writes one block (boot id, counter) to csv.rec_dev every 100 ms: two guests that run at once
 * would write in turns.
 *
 *  - with csv.churn, the churner writes words all over so many pages of memory without a pause, at the lowest priority: who copies memory
 * while the guest runs and misses a write is found out by it.
 *
 * Kernel command line (default): csv.port=/dev/ttyS0 csv.tick_ms=10 csv.rec_dev= (none)
 * csv.rec_off=0 (bytes) csv.rec_size=4096 csv.rec_ms=10 csv.rec_max=0 (as many as fit)
 * csv.rec_mode=direct|fsync (direct) csv.ip= csv.tcp=HOST:PORT (none; HOST and csv.ip are IPv4, same /24) csv.wit_off= (none)
 * csv.churn=0 (pages)
 *
 * Block: "CSVREC01", le64 number, le64 guest ms, le64 boot id, pattern from the number, last 4
 * bytes crc32 (zlib's) of everything before.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <linux/fs.h>

struct options {
	char port[64];
	char rec_dev[64];
	char rec_mode[16];
	uint64_t tick_ms;
	uint64_t rec_off;
	uint64_t rec_size;
	uint64_t rec_ms;
	uint64_t rec_max;
	char ip[32];
	char tcp[64];
	uint64_t wit_off;
	uint64_t churn;
	uint64_t *durable; /* shared by all processes */
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void say(int fd, const char *fmt, ...)
{
	char line[256];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	for (int done = 0; done < n;) {
		ssize_t w = write(fd, line + done, (size_t)(n - done));

		if (w < 0 && errno != EINTR)
			return;
		if (w > 0)
			done += (int)w;
	}
}

static void options_parse(struct options *o)
{
	static char text[4096];
	int fd = open("/proc/cmdline", O_RDONLY);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

	*o = (struct options){.port = "/dev/ttyS0",
			      .rec_mode = "direct",
			      .tick_ms = 10,
			      .rec_size = 4096,
			      .rec_ms = 10};
	text[n > 0 ? n : 0] = '\0';
	for (char *word = strtok(text, " \n"); word; word = strtok(NULL, " \n")) {
		char *value = strchr(word, '=');

		if (strncmp(word, "csv.", 4) || !value)
			continue;
		*value++ = '\0';
		word += 4;
		if (!strcmp(word, "port"))
			snprintf(o->port, sizeof(o->port), "%s", value);
		else if (!strcmp(word, "rec_dev"))
			snprintf(o->rec_dev, sizeof(o->rec_dev), "%s", value);
		else if (!strcmp(word, "rec_mode"))
			snprintf(o->rec_mode, sizeof(o->rec_mode), "%s", value);
		else if (!strcmp(word, "tick_ms"))
			o->tick_ms = strtoull(value, NULL, 0);
		else if (!strcmp(word, "rec_off"))
			o->rec_off = strtoull(value, NULL, 0);
		else if (!strcmp(word, "rec_size"))
			o->rec_size = strtoull(value, NULL, 0);
		else if (!strcmp(word, "rec_ms"))
			o->rec_ms = strtoull(value, NULL, 0);
		else if (!strcmp(word, "ip"))
			snprintf(o->ip, sizeof(o->ip), "%s", value);
		else if (!strcmp(word, "tcp"))
			snprintf(o->tcp, sizeof(o->tcp), "%s", value);
		else if (!strcmp(word, "wit_off"))
			o->wit_off = strtoull(value, NULL, 0);
		else if (!strcmp(word, "churn"))
			o->churn = strtoull(value, NULL, 0);
		else if (!strcmp(word, "rec_max"))
			o->rec_max = strtoull(value, NULL, 0);
	}
	if (fd >= 0)
		close(fd);
}

static void modules_load(int port)
{
	FILE *list = fopen("/modules", "r");
	char path[256];

	while (list && fgets(path, sizeof(path), list)) {
		int fd;

		path[strcspn(path, "\n")] = '\0';
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 ||
		    (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST && errno != ENODEV))
			say(port, "E module %s: %s\n", path, strerror(errno));
		if (fd >= 0)
			close(fd);
	}
	if (list)
		fclose(list);
}

static int port_open(const char *path)
{
	struct termios t;
	int fd = open(path, O_RDWR | O_NOCTTY);

	if (fd < 0)
		return -1;
	if (!tcgetattr(fd, &t)) {
		cfmakeraw(&t);
		cfsetspeed(&t, B115200);
		tcsetattr(fd, TCSANOW, &t);
	}
	return fd;
}

static void put_le64(unsigned char *p, uint64_t v)
{
	for (int i = 0; i < 8; i++)
		p[i] = (unsigned char)(v >> (8 * i));
}

static uint32_t crc32_of(const unsigned char *p, size_t n)
{
	uint32_t crc = ~0u;

	while (n--) {
		crc ^= *p++;
		for (int i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return ~crc;
}

static void block_fill(unsigned char *b, uint64_t size, uint64_t number, uint64_t boot)
{
	uint32_t crc;

	memcpy(b, "CSVREC01", 8);
	put_le64(b + 8, number);
	put_le64(b + 16, now_ms());
	put_le64(b + 24, boot);
	for (uint64_t i = 32; i < size - 4; i++)
		b[i] = (unsigned char)(number * 31 + i);
	crc = crc32_of(b, size - 4);
	for (int i = 0; i < 4; i++)
		b[size - 4 + (uint64_t)i] = (unsigned char)(crc >> (8 * i));
}

static int device_wait_open(const struct options *o, int port)
{
	int flags = O_RDWR | O_CLOEXEC;
	int fd = -1;

	if (!strcmp(o->rec_mode, "direct"))
		flags |= O_DIRECT | O_DSYNC;
	/* the partition table is read after the driver is there: up to 10 s */
	for (int i = 0; i < 1000 && fd < 0; i++) {
		fd = open(o->rec_dev, flags);
		if (fd < 0)
			usleep(10000);
	}
	if (fd < 0)
		say(port, "E %s: %s\n", o->rec_dev, strerror(errno));
	return fd;
}

/* Records run in order, one at a time; after an error the same number is never written again. */
static void recorder(const struct options *o, int port)
{
	int fd = device_wait_open(o, port);
	uint64_t boot = 0, size = 0, max = o->rec_max;
	void *buf = NULL;

	if (fd < 0)
		return;
	if (o->rec_size < 64 || posix_memalign(&buf, 4096, (o->rec_size + 4095) & ~4095ull)) {
		say(port, "E rec_size %llu\n", (unsigned long long)o->rec_size);
		return;
	}
	if (getrandom(&boot, sizeof(boot), GRND_NONBLOCK) != (ssize_t)sizeof(boot))
		boot = now_ms() | 1ull << 63;
	if (ioctl(fd, BLKGETSIZE64, &size) || size <= o->rec_off) {
		say(port, "E %s: size %llu, records start at %llu\n", o->rec_dev,
		    (unsigned long long)size, (unsigned long long)o->rec_off);
		return;
	}
	if (!max || max > (size - o->rec_off) / o->rec_size)
		max = (size - o->rec_off) / o->rec_size;
	say(port, "B records %llu\n", (unsigned long long)max);
	for (uint64_t n = 1; n <= max; n++) {
		struct timespec ts = {.tv_sec = (time_t)(o->rec_ms / 1000),
				      .tv_nsec = (long)(o->rec_ms % 1000) * 1000000};

		block_fill(buf, o->rec_size, n, boot);
		if (pwrite(fd, buf, o->rec_size, (off_t)(o->rec_off + (n - 1) * o->rec_size)) !=
			    (ssize_t)o->rec_size ||
		    (strcmp(o->rec_mode, "direct") && fsync(fd))) {
			say(port, "E record %llu: %s\n", (unsigned long long)n, strerror(errno));
			return;
		}
		__atomic_store_n(o->durable, n, __ATOMIC_SEQ_CST);
		if (!o->tcp[0])
			say(port, "R %llu\n", (unsigned long long)n);
		nanosleep(&ts, NULL);
	}
	say(port, "F %llu\n", (unsigned long long)max);
}

/* ---- witness: block "CSVWIT01", le64 boot id, le64 counter, last 4 bytes of 512 the crc ---- */

static void witness(const struct options *o, int port)
{
	struct timespec ts = {.tv_nsec = 100000000};
	int fd = open(o->rec_dev, O_RDWR | O_CLOEXEC | O_DIRECT | O_DSYNC);
	uint64_t boot = 0;
	unsigned char *b = NULL;
	uint32_t crc;

	for (int i = 0; i < 1000 && fd < 0; i++) {
		usleep(10000);
		fd = open(o->rec_dev, O_RDWR | O_CLOEXEC | O_DIRECT | O_DSYNC);
	}
	if (fd < 0 || posix_memalign((void **)&b, 4096, 4096)) {
		say(port, "E witness: %s: %s\n", o->rec_dev, strerror(errno));
		return;
	}
	if (getrandom(&boot, sizeof(boot), GRND_NONBLOCK) != (ssize_t)sizeof(boot))
		boot = now_ms() | 1ull << 63;
	memset(b, 0, 4096);
	for (uint64_t n = 1;; n++) {
		memcpy(b, "CSVWIT01", 8);
		put_le64(b + 8, boot);
		put_le64(b + 16, n);
		crc = crc32_of(b, 508);
		for (int i = 0; i < 4; i++)
			b[508 + i] = (unsigned char)(crc >> (8 * i));
		if (pwrite(fd, b, 4096, (off_t)o->wit_off) != 4096) {
			say(port, "E witness %llu: %s\n", (unsigned long long)n, strerror(errno));
			return;
		}
		nanosleep(&ts, NULL);
	}
}

/*
 * A window of pages goes round: while a page is in it, it is written again and again, then not for a whole round: a single write that
 * was missed is seen.
 */
#define CHURN_WINDOW 64u
#define CHURN_WRITES 1500u /* per step of the window */

static void churner(const struct options *o, int port)
{
	struct sched_param sp = {0};
	volatile uint64_t *m = mmap(NULL, o->churn * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t x = 88172645463325252ull;

	if (m == MAP_FAILED) {
		say(port, "E churn %llu: %s\n", (unsigned long long)o->churn, strerror(errno));
		return;
	}
	sched_setscheduler(0, SCHED_IDLE, &sp);
	for (uint64_t n = 0;; n++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		m[(n / CHURN_WRITES + x % CHURN_WINDOW) % o->churn * 512 + (x >> 32) % 512] = x;
	}
}

/* ---- talker ---- */

static int net_up(const struct options *o)
{
	int s = socket(AF_INET, SOCK_DGRAM, 0);
	struct ifreq r = {.ifr_name = "eth0"};
	struct sockaddr_in *a = (struct sockaddr_in *)&r.ifr_addr;

	a->sin_family = AF_INET;
	if (s < 0 || inet_pton(AF_INET, o->ip, &a->sin_addr) != 1)
		return -1;
	/* the driver may not have found the card yet: up to 10 s */
	for (int i = 0; ioctl(s, SIOCSIFADDR, &r); i++) {
		if (i == 1000)
			return -1;
		usleep(10000);
	}
	a->sin_addr.s_addr = htonl(0xffffff00);
	if (ioctl(s, SIOCSIFNETMASK, &r) || ioctl(s, SIOCGIFFLAGS, &r))
		return -1;
	r.ifr_flags |= IFF_UP;
	if (ioctl(s, SIOCSIFFLAGS, &r))
		return -1;
	close(s);
	return 0;
}

static int tcp_connect(const struct options *o)
{
	struct sockaddr_in sa = {.sin_family = AF_INET};
	char host[64], *colon;
	int fd, one = 1;

	snprintf(host, sizeof(host), "%s", o->tcp);
	colon = strchr(host, ':');
	if (!colon)
		return -1;
	*colon = '\0';
	sa.sin_port = htons((uint16_t)atoi(colon + 1));
	if (inet_pton(AF_INET, host, &sa.sin_addr) != 1)
		return -1;
	for (;;) {
		fd = socket(AF_INET, SOCK_STREAM, 0);
		if (fd >= 0 && !connect(fd, (struct sockaddr *)&sa, sizeof(sa)))
			break;
		close(fd);
		usleep(100000);
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

static void talker(const struct options *o, int port)
{
	struct timespec ts = {.tv_sec = (time_t)(o->tick_ms / 1000), .tv_nsec = (long)(o->tick_ms % 1000) * 1000000};
	uint64_t chain = 14695981039346656037ull;
	char line[64];
	int fd, n;

	if (net_up(o)) {
		say(port, "E net %s: %s\n", o->ip, strerror(errno));
		return;
	}
	fd = tcp_connect(o);
	if (fd < 0) {
		say(port, "E tcp %s\n", o->tcp);
		return;
	}
	say(port, "B connected\n");
	for (uint64_t i = 1;; i++) {
		chain = (chain ^ i) * 1099511628211ull;
		n = snprintf(line, sizeof(line), "%llu %016llx %llu\n", (unsigned long long)i, (unsigned long long)chain,
			     (unsigned long long)__atomic_load_n(o->durable, __ATOMIC_SEQ_CST));
		if (write(fd, line, (size_t)n) != n) {
			say(port, "E tcp %llu: %s\n", (unsigned long long)i, strerror(errno));
			return;
		}
		nanosleep(&ts, NULL);
	}
}

/* Absolute steps; a step that is already over is not made up for, so that a late guest does not
 * send a burst. */
static void ticker(const struct options *o, int port)
{
	struct sched_param sp = {.sched_priority = 10};
	struct timespec next;

	sched_setscheduler(0, SCHED_FIFO, &sp);
	clock_gettime(CLOCK_MONOTONIC, &next);
	for (uint64_t n = 1;; n++) {
		struct timespec now;

		say(port, "T %llu %llu\n", (unsigned long long)n, (unsigned long long)now_ms());
		clock_gettime(CLOCK_MONOTONIC, &now);
		do {
			next.tv_nsec += (long)(o->tick_ms * 1000000);
			next.tv_sec += next.tv_nsec / 1000000000;
			next.tv_nsec %= 1000000000;
		} while (next.tv_sec < now.tv_sec ||
			 (next.tv_sec == now.tv_sec && next.tv_nsec <= now.tv_nsec));
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
	}
}

int main(void)
{
	struct options o;
	int port;

	if (getpid() != 1) {
		fprintf(stderr,
			"guest_init: is the first program of a test guest, not to be started by hand\n");
		return 2;
	}
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	options_parse(&o);
	if (o.tick_ms < 1 || o.tick_ms > 900)
		o.tick_ms = 10;
	port = port_open(o.port);
	if (port < 0) {
		fprintf(stderr, "guest_init: %s: %s\n", o.port, strerror(errno));
		reboot(RB_POWER_OFF);
	}
	say(port, "B init\n");
	modules_load(port);
	o.durable = mmap(NULL, sizeof(*o.durable), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (o.durable == MAP_FAILED) {
		say(port, "E mmap: %s\n", strerror(errno));
		reboot(RB_POWER_OFF);
	}
	if (o.rec_dev[0] && !fork()) {
		recorder(&o, port);
		_exit(0);
	}
	if (o.rec_dev[0] && o.wit_off && !fork()) {
		witness(&o, port);
		_exit(0);
	}
	if (o.churn && !fork()) {
		churner(&o, port);
		_exit(0);
	}
	if (o.tcp[0]) {
		if (!fork()) {
			talker(&o, port);
			_exit(0);
		}
		for (;;)
			pause();
	}
	ticker(&o, port);
}
