/*
 * real_fence_helper.h - what the fence port and its helper process say to each other, and the helper itself.
 *
 * The helper is forked before the volume is opened (rule R15: no child of ours may hold a descriptor of the device or keep the
 * group's socket open) and runs agents until its end of the socket closes.
 */
#ifndef CSVFS_UTILS_ENV_REAL_FENCE_HELPER_H
#define CSVFS_UTILS_ENV_REAL_FENCE_HELPER_H

#include <stdbool.h>
#include <stdint.h>

#include "utils/base/err.h"
#include "utils/env/fence_conf.h"

/* Packets of a SOCK_SEQPACKET pair: same machine, same program. */
struct fence_ask { uint32_t seq, nodeid; };
struct fence_answer { uint32_t seq; int result; char text[400]; };

/* Blocking: off, then status until it says off or the time is over.  0: confirmed. */
int fence_run(const char *path, uint32_t nodeid, struct csv_err *err);
/* Blocking, at most `most_s` seconds and the file's timeout: what the agent's status says.  0: *ret_on, or -errno with err. */
int fence_status(const char *path, uint32_t nodeid, unsigned most_s, bool *ret_on, struct csv_err *err);
/* Never returns. */
void fence_helper_main(int fd, const char *conf_path) __attribute__((noreturn));

#endif
