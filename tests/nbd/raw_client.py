"""An NBD client that says what it is told to: for what libraries would not say, or cannot say yet."""

import socket
import struct

LIST, INFO, GO, STRUCTURED, SET_CONTEXTS, EXTENDED = 3, 6, 7, 8, 10, 11
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
FUA, NO_HOLE, DF, ONE, FAST, PAYLOAD = (1 << bit for bit in range(6))
ACK, META_CONTEXT = 1, 4
CHUNK_NONE, CHUNK_DATA, CHUNK_HOLE, CHUNK_STATUS, CHUNK_STATUS_EXTENDED, CHUNK_ERROR = 0, 1, 2, 5, 6, 0x8001
TIMEOUT_S = 30


class RawClient:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT_S)
        self.socket.connect(path)
        self.extended = False
        assert self.hear(18) == b"NBDMAGICIHAVEOPT\0\3"
        self.say(struct.pack(">I", 3))

    def say(self, data):
        self.socket.sendall(data)

    def hear(self, count):
        heard = b""
        while len(heard) < count:
            piece = self.socket.recv(count - len(heard))
            if not piece:
                raise EOFError(f"{len(heard)} of {count} bytes")
            heard += piece
        return heard

    def close(self):
        self.socket.close()

    def option(self, number, data=b""):
        """All that is answered: (type, payload)."""
        self.say(b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data)
        answers = []
        while not answers or not (answers[-1][0] == ACK or answers[-1][0] >> 31):
            magic, echoed, kind, length = struct.unpack(">QIII", self.hear(20))
            assert (magic, echoed) == (0x3E889045565A9, number)
            answers.append((kind, self.hear(length)))
        return answers

    def set_contexts(self, export, *queries):
        """Their ids by their names."""
        def text(word):
            return struct.pack(">I", len(word)) + word.encode()
        answers = self.option(SET_CONTEXTS, text(export) + struct.pack(">I", len(queries)) + b"".join(map(text, queries)))
        assert answers.pop()[0] == ACK
        return {payload[4:].decode(): int.from_bytes(payload[:4], "big") for _, payload in answers}

    def go(self, export):
        name = export.encode()
        answers = self.option(GO, struct.pack(">I", len(name)) + name + struct.pack(">H", 0))
        assert answers[-1][0] == ACK, answers
        return answers

    def extend(self):
        assert self.option(EXTENDED) == [(ACK, b"")]
        self.extended = True

    def request(self, command, offset=0, length=0, flags=0, payload=b"", cookie=7):
        head = struct.pack(">IHHQQQ", 0x21E41C71, flags, command, cookie, offset, length) if self.extended else \
            struct.pack(">IHHQQI", 0x25609513, flags, command, cookie, offset, length)
        self.say(head + payload)

    def simple_reply(self):
        """Its error."""
        magic, error, _ = struct.unpack(">IIQ", self.hear(16))
        assert magic == 0x67446698, hex(magic)
        return error

    def extended_chunk(self, offset):
        """(is the last one, type, payload)"""
        magic, flags, kind, _, at, length = struct.unpack(">IHHQQQ", self.hear(32))
        assert (magic, at) == (0x6E8A278C, offset), (hex(magic), at)
        return flags == 1, kind, self.hear(length)
