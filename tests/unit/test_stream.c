/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhost/hvhostd_stream.h: connections of another process, ended and bounded from outside.
 */
#include "hvhost/hvhostd_stream.h"
#include "tests/unit/unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

START_TEST(a_connection_is_ended_from_outside_and_no_other)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) }, b = a;
	socklen_t len = sizeof(a);
	int l = socket(AF_INET, SOCK_STREAM, 0), k = socket(AF_INET, SOCK_STREAM, 0), c = socket(AF_INET, SOCK_STREAM, 0),
	    d = socket(AF_INET, SOCK_STREAM, 0), rc;
	struct csv_err err = CSV_ERR_INIT;

	ck_assert(!bind(l, (struct sockaddr *)&a, len) && !listen(l, 1) && !getsockname(l, (struct sockaddr *)&a, &len));
	ck_assert(!bind(k, (struct sockaddr *)&b, len) && !listen(k, 1) && !getsockname(k, (struct sockaddr *)&b, &len));
	ck_assert(!connect(c, (struct sockaddr *)&a, sizeof(a)) && !connect(d, (struct sockaddr *)&b, sizeof(b)));
	rc = stream_break("127.0.0.1", ntohs(a.sin_port), &err);
	if (rc == -EPERM || rc == -EOPNOTSUPP) {
		printf("not tried: %s\n", err.text);	/* an ordinary user, or a kernel without it */
	} else {
		ck_assert_msg(rc == 1, "%d: %s", rc, err.text);
		ck_assert_int_eq(send(c, "x", 1, MSG_NOSIGNAL), -1);
		ck_assert_int_eq(send(d, "x", 1, MSG_NOSIGNAL), 1);
		ck_assert_int_eq(stream_break("127.0.0.1", ntohs(a.sin_port), &err), 0);
	}
	ck_assert_int_eq(stream_break("nowhere", 1, &err), -EINVAL);
	close(l), close(k), close(c), close(d);
}
END_TEST

/* A queue that is full drops what knocks: the attempt goes on for minutes. */
START_TEST(an_attempt_to_connect_is_ended_from_outside)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int l = socket(AF_INET, SOCK_STREAM, 0), c[4], rc, error = 0;
	struct csv_err err = CSV_ERR_INIT;
	socklen_t len = sizeof(a);

	ck_assert(!bind(l, (struct sockaddr *)&a, len) && !listen(l, 0) && !getsockname(l, (struct sockaddr *)&a, &len));
	for (size_t i = 0; i < ARRAY_SIZE(c); i++) {
		c[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		ck_assert(!connect(c[i], (struct sockaddr *)&a, sizeof(a)) || errno == EINPROGRESS);
	}
	rc = stream_break("127.0.0.1", ntohs(a.sin_port), &err);
	if (rc == -EPERM || rc == -EOPNOTSUPP) {
		printf("not tried: %s\n", err.text);
	} else {
		ck_assert_msg(rc == (int)ARRAY_SIZE(c), "%d: %s", rc, err.text);
		len = sizeof(error);
		ck_assert(!getsockopt(c[3], SOL_SOCKET, SO_ERROR, &error, &len));
		ck_assert_int_eq(error, ECONNABORTED);
	}
	for (size_t i = 0; i < ARRAY_SIZE(c); i++)
		close(c[i]);
	close(l);
}
END_TEST

static int receive_buffer(int fd)
{
	socklen_t len = sizeof(int);
	int n = -1;

	ck_assert(!getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &n, &len));
	return n;
}

START_TEST(what_a_process_receives_ahead_is_bounded_from_outside_on_that_port_only)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) }, b = a;
	socklen_t len = sizeof(a);
	int l = socket(AF_INET, SOCK_STREAM, 0), k = socket(AF_INET, SOCK_STREAM, 0), c = socket(AF_INET, SOCK_STREAM, 0),
	    self = (int)syscall(SYS_pidfd_open, getpid(), 0), other, got;
	struct csv_err err = CSV_ERR_INIT;

	ck_assert(self >= 0 && !bind(l, (struct sockaddr *)&a, len) && !listen(l, 1) && !getsockname(l, (struct sockaddr *)&a, &len));
	ck_assert(!bind(k, (struct sockaddr *)&b, len) && !listen(k, 1));
	other = receive_buffer(k);
	ck_assert_msg(!stream_bound(getpid(), self, ntohs(a.sin_port), 64 << 10, &err), "%s", err.text);
	ck_assert_int_eq(receive_buffer(l), 2 * (64 << 10));
	ck_assert_int_eq(receive_buffer(k), other);
	ck_assert(!connect(c, (struct sockaddr *)&a, sizeof(a)));
	got = accept(l, NULL, NULL);
	ck_assert_int_eq(receive_buffer(got), 2 * (64 << 10));
	close(l);
	ck_assert_int_eq(stream_bound(getpid(), self, ntohs(a.sin_port), 64 << 10, &err), -ENOENT);
	ck_assert_msg(strstr(err.text, "does not listen"), "%s", err.text);
	close(k), close(c), close(got), close(self);
}
END_TEST

UNIT_MAIN("stream", UNIT_TEST(a_connection_is_ended_from_outside_and_no_other), UNIT_TEST(an_attempt_to_connect_is_ended_from_outside),
	  UNIT_TEST(what_a_process_receives_ahead_is_bounded_from_outside_on_that_port_only))
