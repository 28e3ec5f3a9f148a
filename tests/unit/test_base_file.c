/* SPDX-License-Identifier: GPL-2.0-only */
/* utils/base/file.h: every claim of it. */
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "utils/base/file.h"

#define BYTES (1u << 20)	/* more than a pipe holds */

#define RINGS 20

static volatile sig_atomic_t rung;
static int go[2];

static void rings(int sig)
{
	(void)sig;
	if (++rung == RINGS && write(go[1], "", 1) < 0)
		abort();
}

static void reader(const uint8_t *all, int fd)
{
	uint8_t piece[4093];
	size_t got = 0;
	ssize_t n;

	if (read(go[0], piece, 1) != 1)
		_exit(3);
	while ((n = read(fd, piece, sizeof(piece))) > 0) {
		if (got + (size_t)n > BYTES || memcmp(all + got, piece, (size_t)n))
			_exit(1);
		got += (size_t)n;
	}
	_exit(got == BYTES ? 0 : 2);
}

/* The pipe is full, and nobody reads from it before the writer has been interrupted many times; then an odd number of bytes at a time. */
START_TEST(all_is_written_in_pieces_and_through_interrupts)
{
	struct itimerval every = { .it_interval.tv_usec = 200, .it_value.tv_usec = 200 }, never = { 0 };
	struct sigaction sa = { .sa_handler = rings };
	uint8_t *all = malloc(BYTES);
	int p[2], status, rc;
	ssize_t n, full = 0;
	pid_t pid;

	for (uint32_t i = 0; i < BYTES; i++)
		all[i] = (uint8_t)(i * 2654435761u >> 24);
	ck_assert_int_eq(pipe(p), 0);
	ck_assert_int_eq(pipe(go), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		close(p[1]);
		reader(all, p[0]);
	}
	close(p[0]);
	fcntl(p[1], F_SETFL, O_NONBLOCK);
	while ((n = write(p[1], all + full, BYTES - (size_t)full)) > 0)
		full += n;
	ck_assert_int_lt(full, BYTES);
	fcntl(p[1], F_SETFL, 0);
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &every, NULL);
	rc = csv_write_all(p[1], all + full, BYTES - (size_t)full);
	setitimer(ITIMER_REAL, &never, NULL);
	close(p[1]);
	ck_assert_int_eq(rc, 0);
	ck_assert_int_ge(rung, RINGS);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status) && !WEXITSTATUS(status), "the reader ended with %d", status);
	free(all);
}
END_TEST

START_TEST(what_cannot_be_written_is_an_error)
{
	int full = open("/dev/full", O_WRONLY | O_CLOEXEC), null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	ck_assert_int_eq(csv_write_all(full, "x", 1), -ENOSPC);
	ck_assert_int_eq(csv_write_all(null, "x", 1), -EBADF);
	ck_assert_int_eq(csv_write_all(full, "x", 0), 0);
	close(full);
	close(null);
}
END_TEST

START_TEST(a_directory_is_synchronized_and_nothing_else)
{
	ck_assert_int_eq(csv_dir_sync("."), 0);
	ck_assert_int_eq(csv_dir_sync("/dev/null"), -ENOTDIR);
	ck_assert_int_eq(csv_dir_sync("/nonexistent/dir"), -ENOENT);
}
END_TEST

UNIT_MAIN("base_file",
	  UNIT_TEST(all_is_written_in_pieces_and_through_interrupts),
	  UNIT_TEST(what_cannot_be_written_is_an_error),
	  UNIT_TEST(a_directory_is_synchronized_and_nothing_else))
