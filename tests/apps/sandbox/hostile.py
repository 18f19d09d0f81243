"""Programs that try to get out, to stay, to be too large or to lie: name -> (program, what their end must say, limits).

A program prints ESCAPED where it reached what it should not. CANARY, TARGET, PORT and the like are filled in.
"""

SYSTEM = """
import ctypes, os
C = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    result = getattr(C, name)(*arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    print("ESCAPED", name, result)
def kernel(x86, arm, *arguments):
    number = x86 if os.uname().machine == "x86_64" else arm
    call("syscall", *(ctypes.c_long(a) if isinstance(a, int) else a for a in (number, *arguments)))
"""
DENIED = r"PermissionError: \[Errno 1\]"  # by seccomp
GONE = r"(FileNotFoundError|PermissionError|NotADirectoryError)"  # by the root or by Landlock
CPU, WALL, OUTPUT = (
    "killed: more than 1 s of processor",
    "killed: more than .* s from",
    "killed: more than .* of output",
)
FULL = rf"(OSError: \[Errno 28\]|{CPU})"  # bubblewrap bounds the bytes of a folder, not its files
SHORT = {"wall": 1.5}


def reads(path):
    return f"print('ESCAPED', open({path!r}, 'rb').read(100))", GONE, {}


def writes(path):
    return f"open({path!r}, 'w').write('x'); print('ESCAPED')", rf"({GONE}|OSError: \[Errno 30\])", {}


def says(program, expected=DENIED, **limits):
    return program, expected, limits


def kernel(*arguments, expected=DENIED):
    """A system call of these numbers on the two machines, with its arguments."""
    return SYSTEM + f"kernel({', '.join(map(str, arguments))})", expected, {}


RESOURCES = {
    "fork bomb": says("import os\nwhile True: os.fork()"),
    "fork bomb of the C library": says(SYSTEM + "while True: call('fork')"),
    "vfork": says(SYSTEM + "call('vfork')"),
    "subprocess": says("import subprocess; subprocess.Popen(['/bin/true'])", GONE),
    "multiprocessing": says("import multiprocessing as m; m.Process(target=print).start()", "Error"),
    "thread bomb": says(
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
        "can't start new thread",
    ),
    "memory bomb": says("x = [0]\nwhile True: x += x", "MemoryError"),
    "one large block": says("bytearray(1 << 40)", "MemoryError"),
    "anonymous memory": says("import mmap; mmap.mmap(-1, 1 << 33)", r"OSError: \[Errno 12\]"),
    "decompression bomb": says(
        "import zlib\nx = zlib.compress(bytes(1 << 26))\ny = zlib.decompress(x) * 16; print('ESCAPED')",
        "MemoryError|killed",
    ),
    "endless loop": says("while True: pass", CPU),
    "endless loop of two threads": says(
        "import threading\ndef f():\n  while True: pass\nthreading.Thread(target=f).start(); f()", CPU
    ),
    "deaf endless loop": says(
        "import signal\nfor s in range(1, 65):\n  try: signal.signal(s, signal.SIG_IGN)\n"
        "  except (OSError, ValueError): pass\nwhile True: pass",
        CPU,
    ),
    "loop in a destructor": says("class A:\n  def __del__(self):\n    while True: pass\na = A()", CPU),
    "sleep": says("import time; time.sleep(99)", WALL, **SHORT),
    "hang at exit": says("import atexit, time; atexit.register(time.sleep, 99)", WALL, **SHORT),
    "thread that stays": says(
        "import threading, time; threading.Thread(target=time.sleep, args=(99,)).start()", WALL, **SHORT
    ),
    "lock held for ever": says("import threading; a = threading.Lock(); a.acquire(); a.acquire()", WALL, **SHORT),
    "backtracking expression": says("import re; re.match('(a+)+$', 'a' * 40 + 'b')", CPU),
    "endless output": says("while True: print('x' * 1000)", OUTPUT),
    "endless errors": says("import sys\nwhile True: sys.stderr.write('x' * 1000)", OUTPUT),
    "output past Python": says("import os\nwhile True: os.write(1, b'x' * 65536)", OUTPUT),
    "deep recursion": says("def f(): return f()\nf()", "RecursionError"),
    "bottomless recursion": says(
        "import sys; sys.setrecursionlimit(2**31 - 1)\nclass A: pass\n"
        "A.__getattr__ = lambda a, n: getattr(a, n + 'x')\nA().x",
        "(killed|MemoryError|RecursionError)",
    ),
    "deep source": says("eval('(' * 100000)", "(SyntaxError|MemoryError|RecursionError)"),
    "huge file": says("f = open('a', 'wb')\nwhile True: f.write(bytes(1 << 20))", r"OSError: \[Errno (27|28)\]"),
    "sparse file": says(
        "import os; os.truncate(os.open('a', 65), 1 << 40); print('ESCAPED')", r"OSError: \[Errno 27\]"
    ),
    "several large files": says(
        "for i in range(99): open(str(i), 'wb').write(bytes(1 << 20))", r"OSError: \[Errno 28\]"
    ),
    "many files": says("for i in range(99999): open(str(i), 'w').close()", FULL),
    "deep folders": says("import os\nwhile True: os.mkdir('a'); os.chdir('a')", FULL),
    "many handles": says("a = [open('a', 'w') for _ in range(9999)]", r"OSError: \[Errno 24\]"),
    "higher limits": says("import resource as r; r.setrlimit(r.RLIMIT_CPU, (9, 9))", "(PermissionError|ValueError)"),
    "all handles closed, then a loop": says("import os; os.closerange(0, 64)\nwhile True: pass", CPU),
    "its own stop": says("import signal; signal.raise_signal(signal.SIGSTOP)", f"(^$|{WALL})", **SHORT),
    "reading input": says("input()", "EOFError"),
    "abort": says("import os; os.abort()", "killed by"),
    "null pointer": says("import ctypes; ctypes.string_at(0)", "killed by SIGSEGV"),
}

FILES = {
    "read the canary": reads("CANARY/secret.txt"),
    "read the users": reads("/etc/passwd"),
    "read by way of the parent folder": reads("../../../../../../etc/passwd"),
    "read the environment of a process": reads("/proc/self/environ"),
    "read the memory of a process": reads("/proc/self/mem"),
    "read through a process": reads("/proc/1/root/etc/passwd"),
    "read through a handle of a process": reads("/proc/TARGET/fd/0"),
    "read kernel settings": reads("/sys/kernel/uevent_seqnum"),
    "read a disk": reads("/dev/vda"),
    "read kernel messages": reads("/dev/kmsg"),
    "read a terminal": reads("/dev/tty"),
    "read the old root": reads("/old/etc/passwd"),
    "list the root": says("import os; print('ESCAPED', os.listdir('/'))", GONE),
    "list the canary": says("import os; print('ESCAPED', os.listdir('CANARY'))", GONE),
    "walk everything": says(
        "import os\nfor r in ('/home', '/tmp', '/var', '/opt', '/etc', '/run', '/mnt'):\n"
        "  for p in os.walk(r): print('ESCAPED', p)\nraise KeyError('done')",
        "KeyError: 'done'",
    ),
    "open beneath a handle": says("import os; os.open('etc/passwd', 0, dir_fd=os.open('/', os.O_PATH))", GONE),
    "overwrite the canary": writes("CANARY/secret.txt"),
    "write beside the canary": writes("CANARY/NONCE"),
    "write to the folder of temporary files": writes("/tmp/NONCE"),
    "write to another one": writes("/var/tmp/NONCE"),
    "write to shared memory": writes("/dev/shm/NONCE"),
    "write to the root": writes("/NONCE"),
    "write above the scratch folder": writes("../NONCE"),
    "write a kernel setting": writes("/proc/sys/kernel/core_pattern"),
    "write to a control group": writes("/sys/fs/cgroup/cgroup.procs"),
    "delete the canary": says("import os; os.remove('CANARY/secret.txt'); print('ESCAPED')", GONE),
    "delete everything": says("import shutil; shutil.rmtree('/')", GONE),
    "rename out": says(
        "import os; open('a', 'w'); os.rename('a', '/tmp/NONCE'); print('ESCAPED')", rf"({GONE}|OSError)"
    ),
    "change the standard library": says(
        "import os; open(os.__file__, 'a'); print('ESCAPED')", r"(OSError: \[Errno 30\]|Perm)"
    ),
    "symbolic link": says("import os; os.symlink('CANARY', 'a'); print('ESCAPED')"),
    "hard link": says("import os; os.link('/etc/passwd', 'a'); print('ESCAPED')", "PermissionError"),
    "set-user-id bit": says("import os; open('a', 'w'); os.chmod('a', 0o4755); print('ESCAPED')"),
    "another owner": says("import os; open('a', 'w'); os.chown('a', 0, 0); print('ESCAPED')"),
    "device node": says("import os; os.mknod('a', 0o60666, os.makedev(254, 0)); print('ESCAPED')"),
    "named pipe": says("import os; os.mkfifo('a'); print('ESCAPED')"),
    "change the root": says("import os; os.chroot('.'); print('ESCAPED')"),
    "library of its own": says(
        "import ctypes, _ctypes, shutil\nshutil.copyfile(_ctypes.__file__, 'a.so')\n"
        "ctypes.CDLL('./a.so'); print('ESCAPED')",
        "OSError.*map segment",
    ),
    "memory file": says("import os; os.memfd_create('a'); print('ESCAPED')"),
    "shared memory": says("from multiprocessing import shared_memory as s; s.SharedMemory('NONCE', True, 99)", "Error"),
    "inherited handles": says(
        "import os\nfor fd in range(3, 64):\n  try: os.fstat(fd); print('ESCAPED', fd)\n"
        "  except OSError: pass\nraise KeyError('done')",
        "KeyError: 'done'",
    ),
}

IMPORTS = {
    "installed package": says("import numpy; print('ESCAPED')", "ModuleNotFoundError"),
    "this project": says("import research; print('ESCAPED')", "ModuleNotFoundError"),
    "pip": says("import pip; print('ESCAPED')", "ModuleNotFoundError"),
    "site packages asked for": says("import site; site.main()\nimport pip; print('ESCAPED')", "ModuleNotFoundError"),
    "module of another folder": says("import sys; sys.path.insert(0, 'CANARY')\nimport canary", "ModuleNotFoundError"),
    "subclasses": says(
        "[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == '_wrap_close'][0]"
        ".__init__.__globals__['execv']('/bin/sh', ['sh'])",
        "Error",
    ),
    "the sandbox's own modules": says("import sys; sys.modules['inside.namespaces'].separate()"),
    "a shell": says("import os; assert os.system('true') == 0; print('ESCAPED')", "AssertionError"),
    "another program": says("import os, sys; os.execv(sys.executable, ['python'])", "PermissionError"),
    "environment": says(
        "import os; assert not {*os.environ} - {'LC_CTYPE', 'PWD'}, 'ESCAPED'; 1 / 0", "ZeroDivisionError"
    ),
    "everything in memory": says(
        "import gc; print([str(o)[:200] for o in gc.get_objects()]); 1 / 0", f"(ZeroDivisionError|{OUTPUT})"
    ),
    "host name": says("import os; assert os.uname().nodename != 'HOST', 'ESCAPED'; 1 / 0", "ZeroDivisionError"),
    "the user": says("import os; assert os.getuid() and os.getgid(), 'ESCAPED'; 1 / 0", "ZeroDivisionError"),
}

NETWORK = {
    "connect": says("import socket; socket.create_connection(('127.0.0.1', PORT)); print('ESCAPED')"),
    "datagram": says("import socket as s; s.socket(s.AF_INET, s.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))"),
    "raw socket": says("import socket as s; s.socket(s.AF_INET, s.SOCK_RAW, 1); print('ESCAPED')"),
    "packet socket": says("import socket as s; s.socket(s.AF_PACKET, s.SOCK_RAW); print('ESCAPED')"),
    "netlink": says("import socket as s; s.socket(s.AF_NETLINK, s.SOCK_RAW, 0); print('ESCAPED')"),
    "unix socket": says("import socket as s; s.socket(s.AF_UNIX).connect('CANARY/socket'); print('ESCAPED')"),
    "abstract socket": says("import socket as s; s.socket(s.AF_UNIX).connect('\\0' + 'NONCE'); print('ESCAPED')"),
    "socket pair": says("import socket as s; s.socketpair(); print('ESCAPED')"),
    "to the host of a virtual machine": says("import socket as s; s.socket(s.AF_VSOCK); print('ESCAPED')"),
    "kernel cryptography": says("import socket as s; s.socket(s.AF_ALG, s.SOCK_SEQPACKET); print('ESCAPED')"),
    "listen": says("import socket; socket.create_server(('', 0)); print('ESCAPED')"),
    "name look-up": says(
        "import socket; print('ESCAPED', socket.gethostbyname('localhost'))", "(gaierror|PermissionError)"
    ),
    "web page": says("import urllib.request as u; u.urlopen('http://127.0.0.1:PORT')", "Operation not permitted"),
}

PROCESSES = {
    "kill the parent": says("import os; os.kill(os.getppid(), 9); print('ESCAPED')"),
    "kill another process": says("import os; os.kill(TARGET, 9); print('ESCAPED')"),
    "kill all": says("import os; os.kill(-1, 9); print('ESCAPED')"),
    "kill the group": says("import os; os.killpg(0, 9); print('ESCAPED')"),
    "signal a thread of another": kernel(234, 131, "TARGET", "TARGET", 9, expected="ProcessLookupError"),
    "daemon": says("import os\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0: open('/tmp/NONCE', 'w')"),
    "session": says("import os; os.setsid(); print('ESCAPED')"),
    "group": says("import os; os.setpgid(0, 0); print('ESCAPED')"),
    "priority": says("import os; os.nice(-5); print('ESCAPED')"),
    "processors": says("import os; os.sched_setaffinity(0, {0}); print('ESCAPED')"),
    "limits of another": says("import resource as r; r.prlimit(TARGET, r.RLIMIT_CPU, (1, 1)); print('ESCAPED')"),
    "root again": says("import os; os.setuid(0); print('ESCAPED')"),
    "trace": says(SYSTEM + "call('ptrace', 16, TARGET, None, None)"),
    "memory of another": kernel(310, 270, "TARGET", 0, 0, 0, 0, 0),
    "handle of another": kernel(434, 434, "TARGET", 0),
    "handle from another": kernel(438, 438, 0, 0, 0),
}

KERNEL = {
    "unshare the user": says(SYSTEM + "call('unshare', 0x10000000)"),
    "unshare the mounts": says(SYSTEM + "call('unshare', 0x00020000)"),
    "join a namespace": says(SYSTEM + "call('setns', 0, 0)"),
    "clone a user namespace": kernel(56, 220, 0x10000000 | 17, 0, 0, 0, 0),
    "clone a process": kernel(56, 220, 17, 0, 0, 0, 0),
    "clone3": kernel(435, 435, 0, 88, expected=r"\[Errno 38\]"),
    "mount": says(SYSTEM + "call('mount', b'none', b'/scratch', b'tmpfs', 0, None)"),
    "unmount": says(SYSTEM + "call('umount2', b'/scratch', 2)"),
    "pivot": kernel(155, 41, "b'.'", "b'.'"),
    "open a tree": kernel(428, 428, -100, "b'/'", 1),
    "new file system": kernel(430, 430, "b'proc'", 0),
    "mount attributes": kernel(442, 442, -100, "b'/'", 0, 0, 0),
    "file by number": kernel(304, 265, -100, 0, 0),
    "io_uring": kernel(425, 425, 1, 0),
    "bpf": kernel(321, 280, 0, 0, 0),
    "keys": kernel(250, 219, 0, -3, 1),
    "new key": kernel(248, 217, "b'user'", "b'a'", "b'a'", 1, -3),
    "performance counters": kernel(298, 241, 0, 0, -1, -1, 0),
    "page faults": kernel(282, 282, 1),
    "personality": kernel(135, 92, 0x0040000),
    "kernel module": kernel(175, 105, 0, 0, "b''"),
    "kernel messages": kernel(103, 116, 3, 0, 0),
    "restart": kernel(169, 142, 0xFEE1DEAD, 672274793, 0x1234567, 0),
    "swap": kernel(167, 224, "b'/scratch'", 0),
    "clock": kernel(227, 112, 0, 0),
    "capabilities": says(SYSTEM + "call('capset', bytes(8), bytes(24))"),
    "another filter": kernel(317, 277, 1, 0, 0),
    "process options": says(SYSTEM + "call('prctl', 1, 0, 0, 0, 0)"),
    "typing into a terminal": says("import fcntl; fcntl.ioctl(1, 0x5412, b'x'); print('ESCAPED')"),
    "calls of the x32 interface": kernel(0x40000000 | 39, 0x40000000 | 39),
    "message queue": kernel(240, 180, "b'NONCE'", 66, 384, 0),
    "shared segment": kernel(29, 194, 0, 4096, 0o1600),
    "copy between handles": kernel(275, 76, 0, 0, 1, 0, 9, 0),
    "watch files": kernel(294, 26, 0),
}

PROGRAMS = RESOURCES | FILES | IMPORTS | NETWORK | PROCESSES | KERNEL
# In bubblewrap's folder in memory code may lie; what it does is behind seccomp all the same.
NAMESPACES_ONLY = ("library of its own",)
# Without a sandbox these do reach what they try, and do no harm: so the suite is not passed by programs that cannot.
HARMLESS = (
    "read the users",
    "read by way of the parent folder",
    "read the environment of a process",
    "list the root",
    "list the canary",
    "read the canary",
    "symbolic link",
    "memory file",
    "library of its own",
    "a shell",
    "connect",
    "unix socket",
    "abstract socket",
    "socket pair",
    "listen",
    "handle of another",
    "process options",
    "watch files",
)
