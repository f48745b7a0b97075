"""stream_tag in plain Python: what stands between the bytes of a stream, for tests and for reading."""


class Module:
    def __init__(self, parameters, count):
        self.every_bytes, self.tag_bytes = parameters["every_bytes"], parameters["tag_bytes"]
        self.tag = parameters["id"][: self.tag_bytes].ljust(self.tag_bytes, b"\0")
        self.expect = parameters["expect"][: self.tag_bytes]
        self.strict = parameters["unmarked"] == "drop"
        self.count = count

    def inserted(self, offset):
        """How many bytes of tags there are in front of stream bytes [0, offset)."""
        return -(-offset // self.every_bytes) * self.tag_bytes

    def fill(self, offset, skip, count):
        """Bytes [skip, skip + count) of the tag in front of stream byte `offset`."""
        self.count("tags")
        return self.tag[skip : skip + count]

    def check(self, offset, skip, content):
        """Whether such bytes of the peer's are accepted."""
        if not content.startswith(self.expect[skip : skip + len(content)]):
            self.count("wrong_identity")
            return False
        self.count("stripped", int(skip + len(content) == self.tag_bytes))
        return True
