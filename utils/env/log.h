/*
 * log.h - the log port.  Libraries return errors; daemons log each failure once: who, what, numbers with units.
 * env_log() formats on the caller's stack and may be called from any thread of a daemon.
 */
#ifndef CSVFS_UTILS_ENV_LOG_H
#define CSVFS_UTILS_ENV_LOG_H

enum log_level { LOG_L_ERR, LOG_L_WARN, LOG_L_NOTE, LOG_L_INFO, LOG_L_DEBUG };
struct logger { void (*write)(struct logger *l, enum log_level level, const char *text); enum log_level max; };

/* NULL logger: dropped. */
void log_to(struct logger *l, enum log_level level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
