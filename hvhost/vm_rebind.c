/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vm_rebind.c - a VM that stands still because its volume went away gets a fresh QEMU on the same node, with its memory.
 */
#include "hvhost/vm_internal.h"

#include <errno.h>

int vm_rebind(struct vm *vm, struct csv_err *err)
{
	return csv_err_set(err, -CSV_E_UNSUPPORTED, "VM %s: not yet", vm->name);
}
