/* SPDX-License-Identifier: GPL-2.0-only */
/* test_vm_mark.c - a QEMU's mark on tmpfs. */
#include <errno.h>
#include <string.h>

#include "hvhost/vm.h"
#include "tests/unit/unit.h"

static const struct vmsm_mark whole = { .bound = 3, .txid = 5, .moving = 7, .offered = 11, .to_inc = 13, .to = 17, .config = 19, .resumed = 1 };

START_TEST(mark_written_and_read_is_the_same)
{
	json_t *o = vm_mark_to_json(&whole);
	struct vmsm_mark m;

	ck_assert_int_eq(vm_mark_from_json(o, &m), 0);
	ck_assert_mem_eq(&m, &whole, sizeof(m));
	json_decref(o);
}
END_TEST

START_TEST(mark_that_lacks_any_field_binds_nothing)
{
	static const struct vmsm_mark none;
	json_t *o = vm_mark_to_json(&whole), *less;
	struct vmsm_mark m;
	const char *key;
	json_t *v;
	int n = 0;

	json_object_foreach(o, key, v) {
		less = json_deep_copy(o);
		json_object_del(less, key);
		ck_assert_msg(vm_mark_from_json(less, &m) == -EINVAL, "without %s it is read", key);
		ck_assert_mem_eq(&m, &none, sizeof(m));
		json_decref(less);
		n++;
	}
	ck_assert_int_eq(n, 8);
	json_decref(o);
}
END_TEST

UNIT_MAIN("vm_mark", UNIT_TEST(mark_written_and_read_is_the_same), UNIT_TEST(mark_that_lacks_any_field_binds_nothing))
