# SPDX-License-Identifier: Apache-2.0
"""The iptables backend, rule for rule as the Go plugin makes it.

    -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT          (and OUTPUT)
    -A CNI-HOSTPORT-DNAT -p tcp -m comment --comment 'dnat name: "podnet" id: "0a1b"'
                         -m multiport --dports 8080,8443 -j CNI-DN-<hash>
    -A CNI-DN-<hash> -s 10.244.1.0/24 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
    -A CNI-DN-<hash> -s 127.0.0.1/32 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
    -A CNI-DN-<hash> -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.244.1.2:80
    -A CNI-DN-<hash> -m comment --comment "cni:podnet:0a1b:eth0"    (ours alone: see `leftovers`)
    -A CNI-HOSTPORT-SETMARK -j MARK --set-xmark 0x2000/0x2000
    -A POSTROUTING -j CNI-HOSTPORT-MASQ
    -A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE

So either suite deletes what the other made. A look and one transaction for each IP version.
"""

from __future__ import annotations

from cni_portmap import leftovers
from cni_portmap.across import refuse_taken_by_nftables
from cni_portmap.config import Config
from cni_portmap.mapping import NAMES, PROTOCOLS, Claim
from cni_portmap.table import VERSIONS
from cni_portmap.taken import Taken
from libcni import iptables, orphans
from libcni.attachment import Attachment
from libcni.inet import Prefix, ntop, pton
from libcni.netns_lock import NamespaceLock
from libcni.types.errors import CHECK_FAILED, KERNEL, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

TABLE = "nat"
_ENTRY, _SET_MARK, _MASQUERADE = "CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ"
#: Ports of one multiport match; a range counts twice.
_PORTS = 15
#: Characters of a comment; XT_MAX_COMMENT_LEN is 256 with the final NUL.
_COMMENT = 255


def _comment_text(attachment: Attachment) -> str:
    text = f'dnat name: "{attachment.network}" id: "{attachment.container_id}"'
    # As Go and then the tool cut it.
    return text if len(text) <= _COMMENT else text[: _COMMENT - 2] + ".."


class Rules:
    """What an attachment needs for one IP version, as `iptables-save` shows it."""

    __slots__ = ("chain", "conditional", "entries", "mark", "own", "version")

    def __init__(
        self,
        attachment: Attachment,
        config: Config,
        target: Prefix,
        claims: list[Claim],
        saved: list[str],
        are_new: bool,
    ) -> None:
        """saved: what there is, which decides about the chain; see `leftovers`.

        are_new: the rules are to be made.
        """
        self.version = 4 if len(target.packed) == 4 else 6
        self.chain = _chain_for(attachment, saved, target.packed if are_new else b"")
        self.mark = f"-A {self.chain} -m comment --comment {iptables.quoted(attachment.comment)}"
        self.own = [
            line
            for claim in claims
            if claim.family == target.family
            for line in self._translations(config, target, claim)
        ]
        self.conditional = self.version in config.conditions
        self.entries = self._jumps(attachment, config, claims)

    def _translations(self, config: Config, target: Prefix, claim: Claim) -> list[str]:
        name = NAMES[claim.protocol]
        bits = len(target.packed) * 8
        last = claim.port + claim.count - 1
        ports = f"{claim.port}:{last}" if claim.count > 1 else str(claim.port)
        host = f"-d {ntop(claim.address)}/{bits} " if claim.address else ""
        match = f"{host}-p {name} -m {name} --dport {ports}"
        lines = []
        if config.snat:
            mark = f"-j {config.mark_chain or _SET_MARK}"
            if config.masquerade_all:
                lines.append(f"-A {self.chain} {match} {mark}")
            else:
                lines.append(f"-A {self.chain} -s {target.network().text()} {match} {mark}")
                if self.version == 4:
                    lines.append(f"-A {self.chain} -s 127.0.0.1/32 {match} {mark}")
        address = ntop(target.packed) if self.version == 4 else f"[{ntop(target.packed)}]"
        to = f"{address}:{claim.target_port}"
        if claim.count > 1:
            to += f"-{claim.target_port + claim.count - 1}/{claim.port}"
        lines.append(f"-A {self.chain} {match} -j DNAT --to-destination {to}")
        return lines

    def _jumps(self, attachment: Attachment, config: Config, claims: list[Claim]) -> list[str]:
        """The rules of CNI-HOSTPORT-DNAT, for a group of ports each.

        As in Go these have the ports of both IP versions; the chain tells which it is for.
        """
        comment = iptables.quoted(_comment_text(attachment))
        conditions = " ".join(map(_word, config.conditions.get(self.version, [])))
        lines = []
        for name, protocol in PROTOCOLS.items():
            ports: dict[str, int] = {}
            for claim in claims:
                if claim.protocol == protocol:
                    if claim.count > 1:
                        ports[f"{claim.port}:{claim.port + claim.count - 1}"] = 2
                    else:
                        ports[str(claim.port)] = 1
            for group in _groups(ports):
                lines.append(
                    f"-A {_ENTRY} -p {name} -m comment --comment {comment} "
                    f"-m multiport --dports {group} {conditions} -j {self.chain}"
                )
        return [line.replace("  ", " ") for line in lines]

    def lines(self, saved: list[str]) -> list[str]:
        """What makes `saved` have these rules and none else of the attachment's.

        The chain is written anew when any of its rules is missing, is another one or has another
        place: what is appended behind a DNAT is never reached. Jumps whose conditions the tool
        writes in another way are made anew.
        """
        return _replacement(saved, self.chain, [*self.own, self.mark], self.entries)

    def missing(self, saved: list[str]) -> list[str]:
        """The rules that are not in `saved`; of those with conditions see `check_conditions`."""
        shown = set(saved)
        absent = [line for line in self.own if line not in shown]
        jumps = _jumps_to(saved, self.chain)
        for line in self.entries:
            if not self.conditional:
                found = line in jumps
            else:
                # A second one for the same ports may have no conditions.
                found = sum(_ports_of(jump) == _ports_of(line) for jump in jumps) == 1
            if not found:
                absent.append(line)
        return absent

    def is_in_order(self, saved: list[str]) -> bool:
        """True if the rules of the chain, none of which is missing, follow each other."""
        places = [saved.index(line) for line in self.own]
        return places == sorted(places)

    def check_conditions(self) -> None:
        """Have the tool compare the jumps' conditions. Raises CniError 103, 11."""
        if not self.conditional:
            return
        try:
            iptables.restore(self.version, TABLE, ["-C" + line[2:] for line in self.entries])
        except CniError as error:
            if error.code != KERNEL:
                raise
            raise CniError(
                CHECK_FAILED,
                f"portmap: {iptables.program(self.version)} table {TABLE}"
                f": the jumps to {self.chain} do not "
                f"have the conditions of conditionsV{self.version}",
                error.msg,
            ) from error


def _replacement(
    saved: list[str], chain: str, own: list[str], jumps: list[str], is_wanted: bool = True
) -> list[str]:
    """What makes `saved` have a chain of these rules and these jumps to it, or neither."""
    exists, there = _has_chain(saved, chain), _jumps_to(saved, chain)
    lines = []
    if is_wanted and (not exists or _rules_of(saved, chain) != own):
        lines += [f"-F {chain}" if exists else f"-N {chain}", *own]
    if sorted(there) != sorted(jumps):
        lines += ["-D" + line[2:] for line in there]
        lines += jumps
    if exists and not is_wanted:
        lines += [f"-F {chain}", f"-X {chain}"]
    return lines


def _chain_for(attachment: Attachment, saved: list[str], target: bytes) -> str:
    """Go's chain, unless another interface of the container has it.

    target: where rules are to lead that are to be made: a chain that does not say whose it is is
    not written anew if it leads somewhere else.
    """
    own = leftovers.own_chain_name(attachment)
    shared = leftovers.chain_name(attachment.network, attachment.container_id)
    if _has_chain(saved, own):
        return own
    content = _rules_of(saved, shared)
    marks = [mark for line in content if (mark := _mark(line))]
    if marks:
        return shared if leftovers.is_of(marks[0], attachment) else own
    return own if target and _led_to(content) - {target} else shared


def _has_chain(saved: list[str], chain: str) -> bool:
    return any(line.startswith(f":{chain} ") for line in saved)


def _rules_of(saved: list[str], chain: str) -> list[str]:
    return [line for line in saved if line.startswith(f"-A {chain} ")]


def _mark(line: str) -> str:
    """The attachment that a rule of a container's chain names, or ""."""
    comment = _comment(line)
    return comment if comment.startswith("cni:") else ""


def _jumps_to(saved: list[str], chain: str) -> list[str]:
    return [line for line in saved if line.startswith("-A ") and line.endswith(f" -j {chain}")]


def _ports_of(jump: str) -> tuple[str, str]:
    """The protocol and the ports that a rule of CNI-HOSTPORT-DNAT is for."""
    words = jump.split(" ")
    return _after(words, "-p"), _after(words, "--dports")


def _word(word: str) -> str:
    plain = word.replace("-", "").replace(".", "").replace("/", "").replace(":", "")
    return word if plain.isalnum() or word == "!" else iptables.quoted(word)


def _groups(ports: dict[str, int]) -> list[str]:
    """Lists of ports that one multiport match can hold."""
    groups: list[list[str]] = []
    room = 0
    for text, size in ports.items():
        if size > room:
            groups.append([])
            room = _PORTS
        groups[-1].append(text)
        room -= size
    return [",".join(group) for group in groups]


def _frame(config: Config, saved: list[str]) -> list[str]:
    """The lines that make what all attachments share, as far as it is missing."""
    chains = {line.split(" ")[0][1:] for line in saved if line.startswith(":")}
    lines = []
    if _ENTRY not in chains:
        lines.append(f"-N {_ENTRY}")
    for chain in ("PREROUTING", "OUTPUT"):
        rule = f"-A {chain} -m addrtype --dst-type LOCAL -j {_ENTRY}"
        if rule not in saved:
            lines.append(rule)
    if not config.snat or config.mark_chain:
        return lines
    mark = f"{1 << config.mark_bit:#x}"
    set_mark = (
        f'-m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark {mark}/{mark}'
    )
    masquerade = f"-m mark --mark {mark}/{mark} -j MASQUERADE"
    jump = f'-m comment --comment "CNI portfwd requiring masquerade" -j {_MASQUERADE}'
    for chain, rule in ((_SET_MARK, set_mark), (_MASQUERADE, masquerade)):
        if chain not in chains:
            lines.append(f"-N {chain}")
        if f"-A {chain} {rule}" not in saved:
            lines.append(f"-A {chain} {rule}")
    if f"-A POSTROUTING {jump}" not in saved:
        lines.append(f"-I POSTROUTING {jump}")
    return lines


def _sorted_out(
    attachment: Attachment,
    config: Config,
    targets: dict[int, Prefix],
    claims: list[Claim],
    are_new: bool,
) -> list[tuple[Rules, list[str]]]:
    """The rules for each IP version that has any, and what `iptables-save` shows of it now."""
    found = []
    for family, target in targets.items():
        if any(claim.family == family for claim in claims):
            saved = iptables.save(VERSIONS[family], TABLE)
            found.append((Rules(attachment, config, target, claims, saved, are_new), saved))
    return found


def ensure(
    attachment: Attachment,
    config: Config,
    targets: dict[int, Prefix],
    claims: list[Claim],
    undo: Callable[..., None],
) -> tuple[int, ...]:
    """Make chain and rules; returns for which versions of IP. Idempotent.

    undo: called before the first change, with what leaves the attachment's chains and jumps as
    they were. Raises CniError 101 naming the holder of a port with nothing changed, 11 when
    the lock is not to be had, 102 when iptables refuses or is missing.
    """
    orphans.hold(attachment)
    plain = [c for c in claims if VERSIONS[c.family] not in config.conditions]
    with NamespaceLock():
        refuse_taken_by_nftables(attachment, plain)
        families = _sorted_out(attachment, config, targets, claims, True)
        for rules, saved in families:
            mine = [c for c in plain if VERSIONS[c.family] == rules.version]
            refuse_taken(attachment, mine, saved)
        undo(_put_back, [(rules.version, rules.chain, saved) for rules, saved in families])
        for rules, saved in families:
            iptables.ensure(rules.version, TABLE, _missing(config, rules), saved)
    return tuple([rules.version for rules, _ in families])


def _put_back(before: list[tuple[int, str, list[str]]]) -> None:
    """After an ADD that failed: let chains be as they were, or gone. (version, chain, saved)."""
    led_to: set[bytes] = set()
    for version, chain, old in before:
        now = iptables.save(version, TABLE)
        there = _has_chain(old, chain)
        if not there:
            led_to |= _led_to(_rules_of(now, chain))
        lines = _replacement(now, chain, _rules_of(old, chain), _jumps_to(old, chain), there)
        if lines:
            iptables.restore(version, TABLE, lines)
    if led_to:
        from cni_portmap.flows import forget_translated

        forget_translated(led_to)


def _missing(config: Config, rules: Rules) -> Callable[[list[str]], list[str]]:
    """What `iptables.ensure` asks for: the lines that `saved` lacks."""

    def missing(saved: list[str]) -> list[str]:
        return _frame(config, saved) + rules.lines(saved)

    return missing


def refuse_taken(attachment: Attachment, claims: list[Claim], saved: list[str]) -> None:
    """Raise CniError 101 for a port that a chain of another container leads somewhere.

    claims: of the IP version whose nat table `saved` is, as of `iptables.save`.
    """
    own = leftovers.own_chains(attachment)
    holders = _holders(saved)
    for line in saved:
        words = line.split(" ")
        if not line.startswith("-A CNI-DN-") or "DNAT" not in words or words[1] in own:
            continue
        holder = holders.get(words[1])
        if holder is None or holder.has_conditions or holder.is_container(attachment):
            continue
        protocol = PROTOCOLS.get(_after(words, "-p"))
        ports = _after(words, "--dport").split(":")
        if not all(port.isascii() and port.isdigit() and len(port) < 6 for port in ports):
            continue  # a rule of somebody's that has no port
        low, high = int(ports[0]), int(ports[-1])
        host = _after(words, "-d").partition("/")[0]
        for claim in claims:
            meets = low < claim.port + claim.count and claim.port <= high
            apart = host and claim.address and host != ntop(claim.address)
            if claim.protocol == protocol and meets and not apart:
                mine = f"network {attachment.network}, container {attachment.container_id}"
                raise Taken(
                    f"hostPort {claim.text(max(0, low - claim.port))} for {mine}, "
                    f"interface {attachment.ifname} is taken by {holder.text()}",
                    f"chain {words[1]}; if that is gone, a DEL of it frees the port",
                    holder.attachment(),
                    _packed(_after(words, "--to-destination")),
                )


def _packed(destination: str) -> bytes:
    """The address of "10.1.2.3:80" or "[fd00::3]:80", packed; b"" of anything else."""
    try:
        return pton(destination.rpartition(":")[0].strip("[]"))
    except ValueError:
        return b""


def _led_to(rules: list[str]) -> set[bytes]:
    """The addresses, packed, that rules translate to."""
    found = {_packed(_after(line.split(" "), "--to-destination")) for line in rules}
    return found - {b""}


def _after(words: list[str], option: str) -> str:
    """The word after an option, "" without one."""
    at = words.index(option) + 1 if option in words else len(words)
    return words[at] if at < len(words) else ""


class _Holder:
    """Whose a chain is, by the comment of a jump to it and the one in it.

    container_id: as much of it as there was room for. ifname: "" where nothing says it.
    """

    __slots__ = ("comment", "container_id", "has_conditions", "ifname", "is_cut", "network")

    def __init__(self, network: str, container_id: str, is_cut: bool, conditions: bool) -> None:
        self.network = network
        self.container_id = container_id
        self.is_cut = is_cut
        self.has_conditions = conditions
        self.comment = ""
        self.ifname = ""

    def is_container(self, attachment: Attachment) -> bool:
        """True for the attachment's container, in whichever network."""
        if self.is_cut:
            return attachment.container_id.startswith(self.container_id.rstrip("."))
        return self.container_id == attachment.container_id

    def attachment(self) -> Attachment | None:
        """Whose what is removed, if it is gone; None where that is not known in full."""
        if self.is_cut:
            return None
        return Attachment(self.network, self.container_id, self.ifname)

    def text(self) -> str:
        """The same in words."""
        text = f"network {self.network}, container {self.container_id}"
        return f"{text}, interface {self.ifname}" if self.ifname else text


def _holders(saved: list[str]) -> dict[str, _Holder]:
    """Who has each chain that something jumps to."""
    found: dict[str, _Holder] = {}
    for line in saved:
        start, _, rest = line.partition(" --dports ")
        names = _comment(line).split('"')
        if line.startswith(f"-A {_ENTRY} ") and len(names) >= 4:
            # Ports, "-j" and the chain: anything more is a condition, as is what is before -p.
            words = rest.split(" ")
            plain = len(words) == 3 and start.startswith(f"-A {_ENTRY} -p ")
            holder = _Holder(names[1], names[3], len(names) < 5, not plain)
            found.setdefault(line.rpartition(" ")[2], holder)
    for line in saved:
        marked = found.get(line.split(" ")[1]) if line.startswith("-A CNI-DN-") else None
        if marked is not None and (mark := _mark(line)):
            marked.comment = mark
            parts = mark.split(":")
            marked.ifname = parts[3] if len(parts) == 4 else ""
    return found


def _comment(line: str) -> str:
    """The comment of a rule, "" without one; the tool quotes only what needs it."""
    _, _, rest = line.partition(" --comment ")
    if not rest.startswith('"'):
        return rest.partition(" ")[0]
    return rest[1:].replace('\\"', "\0").partition('"')[0].replace("\0", '"')


def check(
    attachment: Attachment, config: Config, targets: dict[int, Prefix], claims: list[Claim]
) -> None:
    """Raise CniError 103 naming the first rule that is missing, or a chain whose order is not
    ADD's, or whose jumps have other conditions."""
    for rules, saved in _sorted_out(attachment, config, targets, claims, False):
        missing = [line for line in _frame(config, saved) if line[1] != "N"]
        missing += rules.missing(saved)
        if missing:
            raise CniError(
                CHECK_FAILED,
                f"portmap: {iptables.program(rules.version)} table {TABLE} lacks {missing[0][3:]}",
                "; ".join(missing[1:]),
            )
        if not rules.is_in_order(saved):
            raise CniError(
                CHECK_FAILED,
                f"portmap: {iptables.program(rules.version)} table {TABLE}"
                f": the rules of {rules.chain} are "
                "in another order",
                f"expected {'; '.join(rules.own)}",
            )
        rules.check_conditions()


def remove_legacy(attachment: Attachment, families: list[int], marked: bool = False) -> set[bytes]:
    """Remove the attachment's rules and chains from iptables-legacy. Idempotent.

    families: the IP versions that have a nat table there. marked: only chains that say that they
    are the attachment's. Without the tool nothing is done. Returns the addresses, packed, that
    they led to. Raises CniError 11 or 102.
    """
    chains = leftovers.own_chains(attachment)

    def is_meant(chain: str, holder: _Holder | None) -> bool:
        mark = holder.comment if holder else ""
        if marked and not mark:
            return False
        return chain in chains and leftovers.is_of(mark, attachment)

    led_to: set[bytes] = set()
    for version in families:
        led_to |= _delete_legacy(version, is_meant)
    return led_to


def gc_legacy(network: str, valid: list[Attachment], families: list[int]) -> set[bytes]:
    """Remove from iptables-legacy what the network's other attachments have there.

    Returns and raises as `remove_legacy`.
    """
    keep = leftovers.Kept(valid)

    def is_meant(chain: str, holder: _Holder | None) -> bool:
        if holder is None or holder.network != network:
            return False
        return not keep.has(chain, holder.comment)

    led_to: set[bytes] = set()
    for version in families:
        led_to |= _delete_legacy(version, is_meant)
    return led_to


def _delete_legacy(version: int, is_meant: Callable[[str, _Holder | None], bool]) -> set[bytes]:
    """Delete the chains for which is_meant(name, its holder) with the jumps to them.

    Returns the addresses, packed, that they led to.
    """
    if not iptables.find(version, "save", iptables.LEGACY):
        return set()
    saved = iptables.save(version, TABLE, iptables.LEGACY)
    holders = _holders(saved)
    names = [line.split(" ")[0][1:] for line in saved if line.startswith((":CNI-DN-", ":CNI-SN-"))]
    chains = [name for name in names if is_meant(name, holders.get(name))]
    lines = []
    for chain in chains:
        lines += [
            "-D" + line[2:]
            for line in saved
            if line.startswith("-A ") and line.endswith(f" -j {chain}")
        ]
        lines += [f"-F {chain}", f"-X {chain}"]
    if lines:
        iptables.restore(version, TABLE, lines, iptables.LEGACY)
    return _led_to([line for chain in chains for line in _rules_of(saved, chain)])


def unusable(versions: tuple[int, ...] = (4,)) -> str:
    """Why iptables cannot be used here, or "" if it can."""
    for version in versions:
        try:
            iptables.save(version, TABLE)
        except CniError as error:
            return error.msg
    return ""
