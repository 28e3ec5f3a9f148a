/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * sigload DIR SECONDS - system calls on a file system under a rain of handled signals (every 500 us, no SA_RESTART).
 * Prints how many calls were made and how many answered EINTR, which those of a disk file system never do.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t rain;

static void handler(int sig)
{
	(void)sig;
	rain++;
}

static unsigned long calls, eintr, failed;

static int judge(const char *what, int rc)
{
	calls++;
	if (rc >= 0)
		return rc;
	if (errno == EINTR)
		eintr++;
	else if (errno != ENOENT && failed++ < 5)
		fprintf(stderr, "sigload: %s: %s\n", what, strerror(errno));
	return rc;
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = handler };
	struct itimerval it = { { 0, 500 }, { 0, 500 } };
	char buf[8192] = { 1 };
	struct stat st;
	time_t end;
	int fd;

	if (argc != 3 || chdir(argv[1])) {
		fprintf(stderr, "usage: sigload DIR SECONDS\n");
		return 2;
	}
	end = time(NULL) + atoi(argv[2]);
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &it, NULL);
	while (time(NULL) < end) {
		fd = judge("open", open("shared", O_RDWR | O_CREAT, 0644));
		if (fd >= 0) {
			judge("pwrite", (int)pwrite(fd, buf, sizeof(buf), 0));
			judge("pread", (int)pread(fd, buf, sizeof(buf), 0));
			judge("fsync", fsync(fd));
			close(fd);
		}
		judge("stat", stat("shared", &st));
		judge("rename", rename("shared", "other"));
		judge("rename", rename("other", "shared"));
	}
	printf("%lu calls, %d signals, %lu EINTR, %lu other errors\n", calls, (int)rain, eintr, failed);
	return eintr || failed || !calls || !rain;
}
