#!/usr/bin/env python3
"""Direct I/O on a disk, for t-vhd-fixed.

  vhdio write PATH START STEP BLOCK PASS   every STEP-th block from START on, each filled with its own words; then fsync
  vhdio expect SIZE BLOCK STEP PASS        sha256 of what STEP such writers leave
  vhdio open PATH r|w [hold]               "ok" or the error's name; hold: until standard input ends
  vhdio try PATH CALL                      pwrite-end, pwrite-across, pread-end, truncate, hole, data-end: prints what came of it
"""
import errno
import hashlib
import mmap
import os
import sys


def words(block, number, step, turn):
    return (b'block %010d of writer %02d in pass %02d.....' % (number, number % step, turn))[:32] * (block // 32)


def write(path, start, step, block, turn):
    fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    size = os.fstat(fd).st_size
    m = mmap.mmap(-1, block)
    for n in range(start, size // block, step):
        m[:] = words(block, n, step, turn)
        done = os.pwritev(fd, [m], n * block)
        assert done == block, f'{path}: block {n}: {done} bytes written'
    os.fsync(fd)


def expect(size, block, step, turn):
    h = hashlib.sha256()
    for n in range(size // block):
        h.update(words(block, n, step, turn))
    print(h.hexdigest())


def attempt(call):
    try:
        return str(call())
    except OSError as e:
        return errno.errorcode[e.errno]


def open_it(path, mode, hold):
    try:
        os.open(path, os.O_RDONLY if mode == 'r' else os.O_RDWR)
    except OSError as e:
        print(errno.errorcode[e.errno])
        return
    print('ok', flush=True)
    if hold:
        sys.stdin.read()


def try_it(path, call):
    fd = os.open(path, os.O_RDWR)
    size = os.fstat(fd).st_size
    print(attempt({
        'pwrite-end': lambda: os.pwrite(fd, b'x' * 512, size),
        'pwrite-across': lambda: os.pwrite(fd, b'x' * 1024, size - 512),
        'pread-end': lambda: len(os.pread(fd, 4096, size)),
        'pread-across': lambda: len(os.pread(fd, 4096, size - 512)),
        'truncate': lambda: os.ftruncate(fd, size // 2),
        'truncate-same': lambda: os.ftruncate(fd, size),
        'hole': lambda: os.lseek(fd, 0, os.SEEK_HOLE) == size,
        'data-end': lambda: os.lseek(fd, size, os.SEEK_DATA),
    }[call]))


a = sys.argv[1:]
if a[0] == 'write':
    write(a[1], *map(int, a[2:6]))
elif a[0] == 'expect':
    expect(*map(int, a[1:5]))
elif a[0] == 'open':
    open_it(a[1], a[2], a[3:] == ['hold'])
else:
    try_it(a[1], a[2])
