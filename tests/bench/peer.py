"""peer - the workloads of the benchmarks in Python, with its own sockets and streams.

usage: peer.py WORKLOAD COUNT [PORT]   prints: WORKLOAD NS CPU BOTH
       nanoseconds of one operation by the wall clock, and twice by the processor time of this
       process; no PORT: it is both ends
"""
import socket
import ssl
import sys
import tempfile
import threading
import time

PIECE = 65536
LINES = 800


def connect(port):
    s = socket.create_connection(("127.0.0.1", port))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def text_lines(kind):
    """Lines like those of peer.c, as strings."""
    letters = [chr(c) for c in range(33, 113)]
    if kind == "mixed":
        letters = [chr(first + i % 8) for i in range(20) for first in (97, 0x3B1, 0x4E00, 0x1F600)]
    return ["".join(letters[(i + k) % 80] for k in range(80)) for i in range(LINES)]


def pingpong(size):
    def run(s, count):
        octets = b"a" * size
        for _ in range(count):
            s.sendall(octets)
            left = size
            while left:
                left -= len(s.recv(left))
    return run


def connect_send_close(port, count):
    octets = b"a" * 64
    for _ in range(count):
        s = connect(port)
        s.sendall(octets)
        s.close()


def read_lines(s, count):
    readline = s.makefile("r", encoding="utf-8", newline="\n").readline
    for _ in range(count):
        readline()


def write_lines(kind):
    def run(s, count):
        lines = text_lines(kind)
        stream = s.makefile("w", encoding="utf-8", newline="\n")
        for i in range(count):
            stream.write(lines[i % LINES])
            stream.write("\n")
        stream.flush()
    return run


def read_text(s, count):
    stream = s.makefile("r", encoding="utf-8", newline="\n")
    for _ in range(count // 16):
        stream.read(16000)


def read_octets(s, count):
    octets = memoryview(bytearray(PIECE))
    stream = s.makefile("rb")
    for _ in range(count):
        stream.readinto(octets)


def write_octets(s, count):
    octets = bytes(PIECE)
    for _ in range(count):
        s.sendall(octets)


def send_file(s, count):
    with tempfile.TemporaryFile() as file:
        file.write(bytes(1 << 20))
        file.flush()
        for _ in range(count):
            s.sendfile(file, 0)


def read_some(s, count):
    octets = bytearray(PIECE)
    left = count * PIECE
    while left > 0:
        left -= s.recv_into(octets)


def format_lines(s, count):
    stream = s.makefile("w", encoding="utf-8", newline="\n")
    for i in range(count):
        print(f"progress: {i} of {count}", file=stream)
    stream.flush()


def read_one(mode):
    def run(s, count):
        text = {} if mode == "rb" else {"encoding": "utf-8", "newline": "\n"}
        read = s.makefile(mode, **text).read
        for _ in range(count):
            read(1)
    return run


def write_one(mode, one):
    def run(s, count):
        stream = s.makefile(mode)
        write = stream.write
        for _ in range(count):
            write(one)
        stream.flush()
    return run


def datagram_end(port=None):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    s.bind(("127.0.0.1", 0))
    if port:
        s.connect(("127.0.0.1", port))
    return s


def datagram_echo(port, count):
    s, octets = datagram_end(port), b"a" * 64
    for _ in range(count):
        s.send(octets)
        s.recv(2048)


def datagram_ends(_, count):
    receiver = datagram_end()
    sender, octets = datagram_end(receiver.getsockname()[1]), b"a" * 64
    for _ in range(count):
        sender.send(octets)
        receiver.sendto(*receiver.recvfrom(2048))
        sender.recv(2048)


def datagram_single(_, count):
    receiver = datagram_end()
    sender, octets = datagram_end(receiver.getsockname()[1]), b"a" * 1200
    for _ in range(count // 64):
        for _ in range(64):
            sender.send(octets)
        for _ in range(64):
            receiver.recvfrom(2048)


def secure_end(s, side):
    context = ssl.SSLContext(side)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if side == ssl.PROTOCOL_TLS_SERVER:
        context.load_cert_chain("build/tls/server.pem", "build/tls/server.key")
    return context.wrap_socket(s, server_side=side == ssl.PROTOCOL_TLS_SERVER)


def secure_ends(_):
    """Both ends of TLS; the handshakes need each other."""
    client, server = socket.socketpair()
    ends = []
    thread = threading.Thread(
        target=lambda: ends.append(secure_end(server, ssl.PROTOCOL_TLS_SERVER)))
    thread.start()
    ends.insert(0, secure_end(client, ssl.PROTOCOL_TLS_CLIENT))
    thread.join()
    return ends


def passed(sender, receiver, octets):
    sender.sendall(octets)
    while octets:
        octets = octets[receiver.recv_into(octets):]


def tls_ping(ends, count):
    client, server = ends
    octets = memoryview(bytearray(64))
    for _ in range(count):
        passed(client, server, octets)
        passed(server, client, octets)


def tls_octets(ends, count):
    client, server = ends
    octets = memoryview(bytearray(PIECE))
    for _ in range(count):
        passed(client, server, octets)


WORKLOADS = {
    "pingpong1": pingpong(1), "pingpong64": pingpong(64),
    "read-line-ascii": read_lines, "read-line-mixed": read_lines,
    "write-line-ascii": write_lines("ascii"), "write-line-mixed": write_lines("mixed"),
    "read-text-ascii": read_text, "read-text-mixed": read_text,
    "read-octets": read_octets, "write-octets": write_octets, "read-some": read_some,
    "send-file": send_file,
    "format": format_lines,
    "read-char": read_one("r"), "read-byte": read_one("rb"),
    "write-char": write_one("w", "a"), "write-byte": write_one("wb", b"a"),
}


# Those that connect by themselves, or to nobody.
OF_PORTS = {
    "connect-send-close": connect_send_close,
    "datagram-echo": datagram_echo, "datagram-ends": datagram_ends,
    "datagram-single": datagram_single,
}


OF_ENDS = {"tls-ping": tls_ping, "tls-octets": tls_octets}

# What each table's workloads get, made of the port before they are measured.
TABLES = (connect, WORKLOADS), (lambda port: port, OF_PORTS), (secure_ends, OF_ENDS)


def main(name, count, port=None):
    prepare, run = next((prepare, table[name]) for prepare, table in TABLES if name in table)
    side = prepare(port)
    wall, own = time.monotonic_ns(), time.process_time_ns()
    run(side, count)
    own, wall = time.process_time_ns() - own, time.monotonic_ns() - wall
    print(f"{name} {wall / count:.1f} {own / count:.1f} {own / count:.1f}")


main(sys.argv[1], *map(int, sys.argv[2:]))
