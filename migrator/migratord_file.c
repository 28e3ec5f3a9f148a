/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * migratord_file.c - DIR/events.jsonl: an event a line, appended by a thread and synced, replaced by its newer half when it is too long.
 * DIR/known.json: what the coordinator keeps of nodes and VMs (mig_known.c), written by the same thread, whole or not at all.
 *
 * A line that was cut off by a crash is skipped when it is read again.
 */
#include "migrator/migratord_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "utils/base/base.h"
#include "utils/base/file.h"

#define LINES_KEPT 2000u
#define LINES_MAX (2 * LINES_KEPT)
#define QUEUE_MAX 10000u

struct line { struct line *next; char text[]; };

struct evlog {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct line *head, **tail;
	unsigned queued, lost;
	bool end;
	char *keep;			/* to be written as known.json; NULL: nothing new */
	char dir[PATH_MAX - 32], path[PATH_MAX], tmp[PATH_MAX + 8];
	unsigned lines;
	int fd;
};

/* The last LINES_KEPT lines that are JSON. */
static json_t *load(const char *path, unsigned *ret_lines)
{
	json_t *all = json_array(), *e;
	FILE *f = fopen(path, "re");
	char *text = NULL;
	size_t size = 0;

	*ret_lines = 0;
	while (f && getline(&text, &size, f) > 0) {
		++*ret_lines;
		e = json_loads(text, 0, NULL);
		if (json_is_object(e))
			json_array_append(all, e);
		json_decref(e);
		while (json_array_size(all) > LINES_KEPT)
			json_array_remove(all, 0);
	}
	free(text);
	if (f)
		fclose(f);
	return all;
}

static void replace_by_newer(struct evlog *e)
{
	json_t *all = load(e->path, &e->lines), *v;
	FILE *f = fopen(e->tmp, "we");
	size_t i;

	if (f) {
		json_array_foreach(all, i, v) {
			json_dumpf(v, f, JSON_COMPACT);
			fputc('\n', f);
		}
		if (!fflush(f) && !fsync(fileno(f)) && !rename(e->tmp, e->path)) {
			close(e->fd);
			e->fd = open(e->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
			e->lines = (unsigned)json_array_size(all);
		}
		fclose(f);
	}
	json_decref(all);
}

static void write_lines(struct evlog *e, struct line *l)
{
	while (l) {
		struct line *next = l->next;

		if (dprintf(e->fd, "%s\n", l->text) < 0)
			fprintf(stderr, "migratord: %s: %s; an event is not in the log\n", e->path, strerror(errno));
		e->lines++;
		free(l);
		l = next;
	}
	fdatasync(e->fd);
	if (e->lines > LINES_MAX)
		replace_by_newer(e);
}

static void write_known(struct evlog *e, char *text_take)
{
	char path[PATH_MAX], tmp[PATH_MAX];
	bool ok;
	int fd;

	snprintf(path, sizeof(path), "%s/known.json", e->dir);
	snprintf(tmp, sizeof(tmp), "%s/known.json.new", e->dir);
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
	ok = fd >= 0 && !csv_write_all(fd, text_take, strlen(text_take)) && !fsync(fd) && !rename(tmp, path);
	if (!ok)
		fprintf(stderr, "migratord: %s: %s; which nodes are drained would be forgotten if all were off\n", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	if (ok)
		csv_dir_sync(e->dir);
	free(text_take);
}

static json_t *known_load(const char *dir)
{
	char path[PATH_MAX];
	json_error_t je;
	json_t *o;

	snprintf(path, sizeof(path), "%s/known.json", dir);
	if (access(path, F_OK))
		return NULL;
	o = json_load_file(path, JSON_REJECT_DUPLICATES, &je);
	if (!json_is_object(o)) {
		fprintf(stderr, "migratord: %s: line %d: %s; the other nodes' copies are used\n", path, je.line, o ? "no object" : je.text);
		json_decref(o);
		o = NULL;
	}
	return o;
}

static void *writer(void *arg)
{
	struct evlog *e = arg;
	struct line *l;
	char *keep;
	bool end;

	do {
		pthread_mutex_lock(&e->lock);
		while (!e->head && !e->keep && !e->end)
			pthread_cond_wait(&e->more, &e->lock);
		l = e->head;
		e->head = NULL;
		e->tail = &e->head;
		e->queued = 0;
		keep = e->keep;
		e->keep = NULL;
		end = e->end;
		pthread_mutex_unlock(&e->lock);
		if (l)
			write_lines(e, l);
		if (keep)
			write_known(e, keep);
	} while (!end || l || keep);
	return NULL;
}

int evlog_open(const char *dir, struct evlog **ret, json_t **ret_past, json_t **ret_kept, struct csv_err *err)
{
	struct evlog *e = calloc(1, sizeof(*e));

	if (!e)
		return csv_err_set(err, -ENOMEM, "out of memory");
	if (mkdir(dir, 0755) && errno != EEXIST) {
		free(e);
		return csv_err_set(err, -errno, "%s: cannot be made: %s", dir, strerror(errno));
	}
	if (strlen(dir) >= sizeof(e->dir)) {
		free(e);
		return csv_err_set(err, -ENAMETOOLONG, "%.100s...: too long for a folder", dir);
	}
	snprintf(e->dir, sizeof(e->dir), "%s", dir);
	snprintf(e->path, sizeof(e->path), "%s/events.jsonl", dir);
	snprintf(e->tmp, sizeof(e->tmp), "%s.new", e->path);
	e->fd = open(e->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
	if (e->fd < 0) {
		int rc = csv_err_set(err, -errno, "%s: %s", e->path, strerror(errno));

		free(e);
		return rc;
	}
	*ret_past = load(e->path, &e->lines);
	e->tail = &e->head;
	pthread_mutex_init(&e->lock, NULL);
	pthread_cond_init(&e->more, NULL);
	if (pthread_create(&e->thread, NULL, writer, e)) {
		json_decref(*ret_past);
		close(e->fd);
		free(e);
		return csv_err_set(err, -EAGAIN, "no thread for the event log");
	}
	*ret_kept = known_load(dir);
	*ret = e;
	return 0;
}

void evlog_keep(struct evlog *e, const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		return;
	pthread_mutex_lock(&e->lock);
	free(e->keep);
	e->keep = copy;
	pthread_cond_signal(&e->more);
	pthread_mutex_unlock(&e->lock);
}

void evlog_append(struct evlog *e, const char *text)
{
	size_t n = strlen(text) + 1;
	struct line *l = malloc(sizeof(*l) + n);

	if (!l)
		return;
	l->next = NULL;
	memcpy(l->text, text, n);
	pthread_mutex_lock(&e->lock);
	if (e->queued < QUEUE_MAX) {
		*e->tail = l;
		e->tail = &l->next;
		e->queued++;
		l = NULL;
	}
	pthread_cond_signal(&e->more);
	pthread_mutex_unlock(&e->lock);
	free(l);
}

void evlog_close(struct evlog *e)
{
	if (!e)
		return;
	pthread_mutex_lock(&e->lock);
	e->end = true;
	pthread_cond_signal(&e->more);
	pthread_mutex_unlock(&e->lock);
	pthread_join(e->thread, NULL);
	close(e->fd);
	free(e);
}
