"""BPF bytecode from Python: opcodes, and instructions with jumps to labels ahead."""

import struct

# Opcodes; 32 means the lower half, CONST a constant in the instruction.
LOAD64, LOAD32, LOAD16, LOAD8, LOAD_CONST = 0x79, 0x61, 0x69, 0x71, 0x18
STORE64, STORE32, STORE16, STORE_CONST32, STORE_CONST64 = 0x7B, 0x63, 0x6B, 0x62, 0x7A
ATOMIC_ADD64 = 0xDB
CALL, EXIT, JUMP = 0x85, 0x95, 0x05
MOVE, MOVE_CONST, ADD, ADD_CONST, LEFT_CONST, RIGHT_CONST = 0xBF, 0xB7, 0x0F, 0x07, 0x67, 0x77
MULTIPLY, DIVIDE, SUBTRACT = 0x2F, 0x3F, 0x1F
OR, OR_CONST, AND, AND_CONST, XOR, XOR_CONST, NEGATE = 0x4F, 0x47, 0x5F, 0x57, 0xAF, 0xA7, 0x87
AND32_CONST, OR32_CONST, XOR32_CONST = 0x54, 0x44, 0xA4
EQUAL_CONST, NOT_EQUAL_CONST, NOT_EQUAL, EQUAL32_CONST, NOT_EQUAL32_CONST = 0x15, 0x55, 0x5D, 0x16, 0x56
ABOVE_CONST, BELOW_CONST, ABOVE, BIT_CONST = 0x25, 0xA5, 0x2D, 0x45  # unsigned; any of these bits
# Of the packet, in the host's byte order, into r0; at a constant place, or as far behind a register's value.
# The program's context is in r6, and r1 to r5 are lost. Where the packet is too short, the answer is 0.
PACKET8, PACKET16, PACKET32 = 0x30, 0x28, 0x20
PACKET8_BEHIND, PACKET16_BEHIND, PACKET32_BEHIND = 0x50, 0x48, 0x40

MAP_DESCRIPTOR = 1  # as the source register of LOAD_CONST: the constant is a map's descriptor


class Assembler:
    """Instructions, with jumps to labels ahead."""

    def __init__(self) -> None:
        # code, to, from, offset or label, constant
        self.slots: list[tuple[int, int, int, int | str, int]] = []
        self.labels: dict[str, int] = {}

    def emit(self, code: int, to: int = 0, source: int = 0, at: int | str = 0, constant: int = 0) -> None:
        """One instruction. at: a place in memory, or the label a jump goes to."""
        self.slots.append((code, to, source, at, constant))

    def constant(self, register: int, value: int, kind: int = 0) -> None:
        """Load 64 bits: two slots."""
        self.emit(LOAD_CONST, register, kind, constant=value & 0xFFFFFFFF)
        self.emit(0, constant=value >> 32)

    def label(self, name: str) -> None:
        """The next instruction is where jumps to this name go."""
        self.labels[name] = len(self.slots)

    def code(self) -> bytes:
        """The program as a little-endian kernel takes it."""
        words = []
        for place, (code, to, source, at, constant) in enumerate(self.slots):
            offset = self.labels[at] - place - 1 if isinstance(at, str) else at
            words.append(struct.pack("<BBhI", code, source << 4 | to, offset, constant & 0xFFFFFFFF))
        return b"".join(words)
