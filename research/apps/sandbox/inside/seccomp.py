"""A seccomp filter: the kernel answers only the calls that a single computing Python process needs.

Everything else fails with EPERM: no new process or program, no socket, no mount, no tracing, no other process.
"""

import ctypes
import struct

from .system import call

# Name, number on x86_64, number on aarch64 ("-": does not exist there).
_ALLOWED = """
read 0 63          write 1 64          readv 19 65         writev 20 66        pread64 17 67       pwrite64 18 68
open 2 -           openat 257 56       close 3 57          lseek 8 62          dup 32 23           dup2 33 -
dup3 292 24        fcntl 72 25         pipe 22 -           pipe2 293 59        stat 4 -            lstat 6 -
fstat 5 80         newfstatat 262 79   statx 332 291       access 21 -         faccessat 269 48    faccessat2 439 439
readlink 89 -      readlinkat 267 78   getcwd 79 17        chdir 80 49         getdents64 217 61   mkdir 83 -
mkdirat 258 34     rmdir 84 -          unlink 87 -         unlinkat 263 35     rename 82 -         renameat 264 38
renameat2 316 276  truncate 76 45      ftruncate 77 46     fsync 74 82         fdatasync 75 83     poll 7 -
ppoll 271 73       select 23 -         pselect6 270 72     brk 12 214          mmap 9 222          mprotect 10 226
munmap 11 215      mremap 25 216       madvise 28 233      rt_sigaction 13 134 rt_sigprocmask 14 135
rt_sigreturn 15 139                    sigaltstack 131 132 alarm 37 -          getitimer 36 102    setitimer 38 103
tgkill 234 131     getpid 39 172       gettid 186 178      getppid 110 173     getuid 102 174      geteuid 107 175
getgid 104 176     getegid 108 177     uname 63 160        sysinfo 99 179      getrlimit 97 163    getrusage 98 165
times 100 153      time 201 -          gettimeofday 96 169 clock_gettime 228 113                   clock_getres 229 114
nanosleep 35 101   clock_nanosleep 230 115                 futex 202 98        set_robust_list 273 99
rseq 334 293       sched_yield 24 124  sched_getaffinity 204 123               getrandom 318 278   exit 60 93
exit_group 231 94  restart_syscall 219 128
"""
_CLONE, _CLONE3, _IOCTL, _PRLIMIT = (56, 220), (435, 435), (16, 29), (302, 261)
# The kernel's names of the two machines, and their columns in the table.
ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

_LOAD, _EQUAL, _AND, _RETURN = 0x20, 0x15, 0x54, 0x06  # operations of the classic BPF machine
_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
_NUMBER, _MACHINE, _ARGUMENTS = 0, 4, 16  # where they stand in struct seccomp_data
_CLONE_THREAD, _CLONE_NEW = 0x00010000, 0x7E020080  # all flags that make a namespace
_TERMINAL = (0x5401, 0x5450, 0x5451)  # TCGETS (isatty), FIONCLEX, FIOCLEX
_SET_SECCOMP, _FILTER = 22, 2


def table(machine: str) -> dict[str, int]:
    """The numbers of the allowed calls on a machine.

    Raises:
      OSError: a machine whose numbers are not known.
    """
    if machine not in ARCHITECTURES:
        raise OSError(f"seccomp: no table of system calls for {machine!r}; have {sorted(ARCHITECTURES)}")
    column, words = ARCHITECTURES[machine][1], _ALLOWED.split()
    numbers = zip(words[::3], words[1 + column :: 3], strict=True)
    return {name: int(number) for name, number in numbers if number != "-"}


def program(machine: str) -> bytes:
    """The filter, as instructions of the classic BPF machine.

    Raises:
      OSError: a machine whose numbers are not known.
    """
    numbers = table(machine)
    audit, column = ARCHITECTURES[machine]
    code = [(_LOAD, 0, 0, _MACHINE), (_EQUAL, 1, 0, audit), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    for number in numbers.values():
        code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    # Threads of this process only. The C library makes them with `clone` where `clone3`, whose flags lie in memory that
    # no filter reads, does not exist.
    code += _when(_CLONE[column], [_argument(0), (_AND, 0, 0, _CLONE_THREAD | _CLONE_NEW), *_if(_CLONE_THREAD)])
    code += [(_EQUAL, 0, 1, _CLONE3[column]), (_RETURN, 0, 0, _ENOSYS)]
    code += _when(_IOCTL[column], [_argument(1), *(line for request in _TERMINAL for line in _if(request))])
    # Limits are read, not set: the new limit is a null pointer.
    null = [_argument(2), (_EQUAL, 1, 0, 0), (_RETURN, 0, 0, _EPERM), _argument(2, high=True), *_if(0)]
    code += _when(_PRLIMIT[column], null)
    code += [(_RETURN, 0, 0, _EPERM)]
    return b"".join(struct.pack("HBBI", *line) for line in code)


def restrict(code: bytes) -> None:
    """Puts this thread, and all that it starts, behind a `program`; needs no_new_privs.

    Raises:
      OSError: a kernel without seccomp filters.
    """
    buffer = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(struct.pack("HP", len(code) // 8, ctypes.addressof(buffer)))
    call("prctl", _SET_SECCOMP, _FILTER, header)


def _argument(index: int, *, high: bool = False) -> tuple[int, int, int, int]:
    """Loads one half of an argument (both machines are little-endian)."""
    return _LOAD, 0, 0, _ARGUMENTS + 8 * index + 4 * high


def _if(value: int) -> list[tuple[int, int, int, int]]:
    return [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]


def _when(number: int, lines: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Lines for one call, which otherwise fails."""
    return [(_EQUAL, 0, len(lines) + 1, number), *lines, (_RETURN, 0, 0, _EPERM)]
