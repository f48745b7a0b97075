"""perf.tcp_capture: a connection that a chain takes for one, and that comes back as it was."""

from pathlib import Path

from layer45.replay import replay
from perf import lab, tcp_capture

MATCH = f'{{ protocol = "tcp", remote_port = [{lab.PORT}] }}'
CHAIN = '[{ module = "stream_tag", every_bytes = 1000, tag_bytes = 32 }]'


def test_its_connection_is_customized_and_comes_back(tmp_path: Path) -> None:
    source, wire, back = (tmp_path / f"{name}.pcap" for name in ("source", "wire", "back"))
    config = lab.write_config(tmp_path / "etc", CHAIN, MATCH)
    tcp_capture.write(source, 501, 200)
    out = replay(config, lab.POLICY, "egress", source, wire)
    assert (out.read, out.customized) == (3 + 501 + 250, out.read)
    assert out.engine["connections_customized"] == 1
    assert out.instances[0]["counters"]["tags"] == -(-501 * 200 // 1000)  # one in front of each thousand
    assert wire.stat().st_size >= source.stat().st_size + 32 * 100
    home = replay(config, lab.POLICY, "ingress", wire, back)
    assert (home.customized, home.engine["connections_customized"]) == (home.read, 1)
    assert b"".join(payloads(back)) == b"".join(payloads(source))


def payloads(capture: Path) -> list[bytes]:
    from scapy.layers.inet import TCP
    from scapy.utils import rdpcap

    return [
        bytes(packet[TCP].payload)[: packet["IP"].len - 20 - packet[TCP].dataofs * 4]
        for packet in rdpcap(str(capture))
    ]
