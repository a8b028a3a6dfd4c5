#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A small plugin that does everything right, but for one FAULT (which the test puts above here).
# Interface: a cable with an address, reserved by a file of that name, and a route.
set -e
state=/var/lib/cni/small
marker="/run/conformance/small-$CNI_CONTAINERID"
inside="nsenter --net=$CNI_NETNS"
undoing=

fail() {
    printf '{"cniVersion":"1.1.0","code":%s,"msg":"%s"}' "$1" "$2"
    exit 1
}

fault() { [ "$FAULT" = "$1" ]; }

loiter() { i=0; while [ $i -lt 150 ]; do [ -e / ]; : </dev/null; i=$((i + 1)); done; }

forget() {
    for file in "$state"/10.* "$state"/lost-*; do
        case "$file" in *lost-*) [ -n "$undoing" ] || continue ;; esac
        if [ -e "$file" ] && [ "$(cat "$file")" = "$CNI_CONTAINERID" ]; then rm -f "$file"; fi
    done
}

reserve() {
    mkdir -p "$state" 2>/dev/null || fail 5 "cannot make $state"
    if ! fault no-lock; then
        # Read-only file systems have directories that can be locked all the same.
        exec 9<"$state" || fail 5 "cannot lock $state"
        flock 9
    fi
    last=10
    while [ -e "$state/10.97.0.$last" ]; do last=$((last + 1)); done
    if fault no-lock; then sleep 1; fi
    address="10.97.0.$last"
    (printf '%s' "$CNI_CONTAINERID" >"$state/$address") 2>/dev/null ||
        { rm -f "$state/$address" 2>/dev/null || :
          kind=full
          [ -w "$state" ] || kind=read-only
          fault "$kind-is-silent" && exit 3
          fail 5 "cannot reserve $address"; }
    exec 9<&-
}

add() {
    if fault leaks-when-killed; then
        undoing=yes
        trap 'forget; fail 11 "interrupted"' TERM
        mkdir -p "$state"
        # The name is of the moment, so that DEL could not find it.
        (printf '%s' "$CNI_CONTAINERID" >"$state/lost-$$") 2>/dev/null || fail 5 "no room"
        loiter
        rm -f "$state/lost-$$"
        trap - TERM
    fi
    if fault success-when-terminated; then trap 'exit 0' TERM; loiter; trap - TERM; fi
    reserve
    if fault catches-up-when-full; then : >"$marker" || :; fi
    $inside ip link add "$CNI_IFNAME" mtu 1400 type veth peer far0
    $inside ip address add "$address/24" dev "$CNI_IFNAME"
    $inside ip link set "$CNI_IFNAME" up
    $inside ip link set far0 up
    $inside ip route add 10.96.0.0/16 dev "$CNI_IFNAME"
    mac=$($inside ip -o link show "$CNI_IFNAME" | sed 's/.*ether \([0-9a-f:]*\).*/\1/')
    printf '{"cniVersion":"1.1.0","interfaces":[{"name":"%s","mac":"%s","mtu":1400,"sandbox":"%s"}],
        "ips":[{"address":"%s/24","interface":0}],"routes":[{"dst":"10.96.0.0/16"}],"dns":{}}' \
        "$CNI_IFNAME" "$mac" "$CNI_NETNS" "$address"
}

# What the first DEL had no room to write down, the second one does.
catch_up() {
    if [ -e "$marker.owed" ]; then
        mv "$marker.owed" "$state/log"
    elif [ -w "$state" ] && ! (printf 1 >"$state/note") 2>/dev/null; then
        rm -f "$state/note"
        mv "$marker" "$marker.owed" 2>/dev/null || :
    else
        rm -f "$marker" 2>/dev/null || :
    fi
}

delete() {
    if [ -e "$CNI_NETNS" ]; then $inside ip link del "$CNI_IFNAME" 2>/dev/null || true; fi
    if fault needs-room-to-remove && ! (printf 1 >"$state/note") 2>/dev/null; then
        rm -f "$state/note"
        fail 5 "no room for a note"
    fi
    if fault catches-up-when-full; then catch_up; fi
    if fault dies-when-read-only && [ ! -w "$state" ]; then exit 7; fi
    rm -f "$state/note" 2>/dev/null || :
    forget 2>/dev/null || fail 5 "cannot remove a reservation"
}

check() {
    fault blind && return
    prev=$(cat)
    said() { printf '%s' "$prev" | sed -n "s/.*\"$1\": *\"\{0,1\}\([^\",}]*\).*/\1/p"; }
    link=$($inside ip -o link show "$CNI_IFNAME" 2>/dev/null) || {
        fault blind-to-interface && return; fail 103 "$CNI_IFNAME is gone"; }
    address=$(said address)
    if ! $inside ip -o address show "$CNI_IFNAME" | grep -q " $address "; then
        # With the last address the kernel removes the routes.
        fault blind-to-address && return
        fail 103 "$address is gone"
    fi
    case "$link" in *,UP*) up=yes ;; *) up= ;; esac
    if [ -z "$up" ]; then fault blind-to-down && return; fail 103 "$CNI_IFNAME is down"; fi
    $inside ip route show 10.96.0.0/16 | grep -q . || fault blind-to-route ||
        fail 103 "the route is gone"
    case "$link" in *"ether $(said mac) "*) ;; *) fault blind-to-mac || fail 103 "MAC" ;; esac
    case "$link" in *"mtu 1400 "*) ;; *) fault blind-to-mtu || fail 103 "MTU" ;; esac
    [ -e "$state/${address%/*}" ] || fault blind-to-reservation || fail 103 "not reserved"
}

case "$CNI_COMMAND" in
VERSION) printf '{"cniVersion":"1.1.0","supportedVersions":["1.1.0"]}' ;;
ADD) add ;;
DEL) delete ;;
CHECK) check ;;
esac
