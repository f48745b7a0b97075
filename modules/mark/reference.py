"""mark in plain Python: what is selected is written in drop's reference."""

from layer45.modules.drop.reference import selected


class Module:
    def __init__(self, parameters, count):
        self.parameters = parameters
        self.count = count

    def egress(self, packet):
        self.judge(packet)

    def ingress(self, packet):
        self.judge(packet)

    def judge(self, packet):
        if not selected(self.parameters, packet.payload):
            return
        self.count("selected")
        if packet.dscp != self.parameters["dscp"]:
            packet.dscp = self.parameters["dscp"]
            self.count("marked")
