"""Layer 4.5: customize what a host's protocols do on the wire, per socket."""
