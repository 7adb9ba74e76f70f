/* option_table - every socket option, a row each (layer 2). Stands on status.
 *
 * Invariant: a name, what its value is, where the system keeps it and the sockets it is for stand
 * in one row, and nowhere else. Rows are found by their place, which is no part of the interface:
 * callers go through the names. */
#include "option_table.h"

#include "libport.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/socket.h>

static const struct {
    int sockets;
    const char *text;
} audiences[] = {
    {ALL, "every socket"}, {IP, "TCP and UDP"}, {TCP, "TCP"},
    {UDP, "UDP"},          {IP6, "IPv6"},       {LOCAL, "local sockets"},
};

static const char *const shape_names[] = {
    [BOOLEAN] = "boolean", [INTEGER] = "integer",     [TIME] = "time", [LINGER] = "time",
    [CHOICE] = "choice",   [INTERFACE] = "interface", [TEXT] = "text",
};

static const struct choice domains[] = {
    {AF_UNIX, "local"}, {AF_INET, "inet"}, {AF_INET6, "inet6"}, {0, NULL}};

static const struct choice types[] = {
    {SOCK_STREAM, "stream"}, {SOCK_DGRAM, "datagram"}, {SOCK_SEQPACKET, "seqpacket"}, {0, NULL}};

static const struct choice protocols[] = {
    {0, "default"}, {IPPROTO_TCP, "tcp"}, {IPPROTO_UDP, "udp"},
    {262, "mptcp"}, /* IPPROTO_MPTCP, which older headers do not have */
    {0, NULL},
};

static const struct choice discoveries[] = {
    {IP_PMTUDISC_DONT, "never"},
    {IP_PMTUDISC_WANT, "route"},
    {IP_PMTUDISC_DO, "always"},
    {IP_PMTUDISC_PROBE, "probe"},
    {IP_PMTUDISC_INTERFACE, "interface"},
    {IP_PMTUDISC_OMIT, "omit"},
    {0, NULL},
};

/* clang-format off */
static const struct lport_option options[] = {
    /* what the socket is */
    {"type", "", CHOICE, ALL, READ_ONLY, 0, {SOL_SOCKET, SO_TYPE}, {0, 0}, types,
     "What kind of socket it is (SO_TYPE)."},
    {"domain", "", CHOICE, ALL, READ_ONLY, 0, {SOL_SOCKET, SO_DOMAIN}, {0, 0}, domains,
     "Its family (SO_DOMAIN)."},
    {"protocol", "", CHOICE, ALL, READ_ONLY, 0, {SOL_SOCKET, SO_PROTOCOL}, {0, 0}, protocols,
     "Its protocol; local sockets have only the default one (SO_PROTOCOL)."},
    {"accepting", "", BOOLEAN, ALL, READ_ONLY, 0, {SOL_SOCKET, SO_ACCEPTCONN}, {0, 0}, NULL,
     "Whether it listens (SO_ACCEPTCONN)."},
    {"error", "", INTEGER, ALL, READ_ONLY | HAS_NONE, 0, {SOL_SOCKET, SO_ERROR}, {0, 0}, NULL,
     "The number of the error that is pending, which reading it takes away (SO_ERROR)."},
    /* names and buffers */
    {"reuse-address", "", BOOLEAN, IP, 0, 0, {SOL_SOCKET, SO_REUSEADDR}, {0, 0}, NULL,
     "A bind may take an address whose connections are in TIME_WAIT (SO_REUSEADDR)."},
    {"reuse-port", "", BOOLEAN, IP, 0, 0, {SOL_SOCKET, SO_REUSEPORT}, {0, 0}, NULL,
     "Sockets that all have it set may share an address (SO_REUSEPORT)."},
    {"v6-only", "", BOOLEAN, IP6, 0, 0, {IPPROTO_IPV6, IPV6_V6ONLY}, {0, 0}, NULL,
     "IPv6 alone, no IPv4; to be set when the socket is opened (IPV6_V6ONLY)."},
    {"free-bind", "", BOOLEAN, IP, 0, 0, {IPPROTO_IP, IP_FREEBIND}, {0, 0}, NULL,
     "A bind may take an address that this machine does not have yet; to be set when the socket is "
     "opened (IP_FREEBIND)."},
    {"transparent", "", BOOLEAN, IP, 0, 0, {IPPROTO_IP, IP_TRANSPARENT}, {0, 0}, NULL,
     "A bind may take any address, as that of a proxy that passes for its clients; to be set when "
     "the socket is opened, needs a privilege (IP_TRANSPARENT)."},
    {"receive-buffer", "octets", INTEGER, ALL, 0, 0, {SOL_SOCKET, SO_RCVBUF}, {0, 0}, NULL,
     "Room for what has arrived; the system doubles what it is given. A window of TCP above 64 KiB "
     "has to be there when the socket is opened, or its listener (SO_RCVBUF)."},
    {"send-buffer", "octets", INTEGER, ALL, 0, 0, {SOL_SOCKET, SO_SNDBUF}, {0, 0}, NULL,
     "Room for what is to be sent; the system doubles what it is given (SO_SNDBUF)."},
    {"receive-low-water", "octets", INTEGER, ALL, 0, 0, {SOL_SOCKET, SO_RCVLOWAT}, {0, 0}, NULL,
     "Fewer octets do not count as input for TCP (SO_RCVLOWAT)."},
    {"send-low-water", "octets", INTEGER, ALL, READ_ONLY, 0, {SOL_SOCKET, SO_SNDLOWAT}, {0, 0},
     NULL, "Always 1 on Linux (SO_SNDLOWAT)."},
    {"linger", "seconds", LINGER, ALL, HAS_NONE, 0, {SOL_SOCKET, SO_LINGER}, {0, 0}, NULL,
     "None: a close returns at once and the system sends the rest. 0: a close resets the "
     "connection. Else the descriptor has that time where another process has it too; a close "
     "here is as with none and never waits for the peer (SO_LINGER)."},
    /* the way */
    {"device", "", TEXT, IP, HAS_NONE, 0, {SOL_SOCKET, SO_BINDTODEVICE}, {0, 0}, NULL,
     "The one interface that it uses, by name (SO_BINDTODEVICE)."},
    {"dont-route", "", BOOLEAN, IP, 0, 0, {SOL_SOCKET, SO_DONTROUTE}, {0, 0}, NULL,
     "To neighbours only, through no gateway (SO_DONTROUTE)."},
    {"priority", "", INTEGER, ALL, 0, 0, {SOL_SOCKET, SO_PRIORITY}, {0, 0}, NULL,
     "For the queues of the interface, 0 to 6 without privileges (SO_PRIORITY)."},
    {"mark", "", INTEGER, ALL, 0, 0, {SOL_SOCKET, SO_MARK}, {0, 0}, NULL,
     "For routing and filters; needs a privilege (SO_MARK)."},
    {"incoming-cpu", "processor", INTEGER, ALL, HAS_NONE, -1, {SOL_SOCKET, SO_INCOMING_CPU},
     {0, 0}, NULL, "The processor that its packets come from (SO_INCOMING_CPU)."},
    {"ttl", "hops", INTEGER, IP, 0, 0, {IPPROTO_IP, IP_TTL}, {IPPROTO_IPV6, IPV6_UNICAST_HOPS},
     NULL, "How far packets may go (IP_TTL, IPV6_UNICAST_HOPS)."},
    {"hop-limit", "hops", INTEGER, IP, 0, 0, {IPPROTO_IP, IP_TTL},
     {IPPROTO_IPV6, IPV6_UNICAST_HOPS}, NULL, "IPv6's name for ttl."},
    {"type-of-service", "", INTEGER, IP, IS_OCTET, 0, {IPPROTO_IP, IP_TOS},
     {IPPROTO_IPV6, IPV6_TCLASS}, NULL,
     "The octet with DSCP in its upper six bits, RFC 2474 (IP_TOS, IPV6_TCLASS)."},
    {"traffic-class", "", INTEGER, IP, IS_OCTET, 0, {IPPROTO_IP, IP_TOS},
     {IPPROTO_IPV6, IPV6_TCLASS}, NULL, "IPv6's name for type-of-service."},
    {"mtu-discovery", "", CHOICE, IP, 0, 0, {IPPROTO_IP, IP_MTU_DISCOVER},
     {IPPROTO_IPV6, IPV6_MTU_DISCOVER}, discoveries,
     "Whether the way's MTU is found out, and packets are not fragmented (IP_MTU_DISCOVER, "
     "IPV6_MTU_DISCOVER)."},
    {"mtu", "octets", INTEGER, IP, READ_ONLY, 0, {IPPROTO_IP, IP_MTU}, {IPPROTO_IPV6, IPV6_MTU},
     NULL, "The MTU of the way, as far as known; of connected sockets, and where an option has changed "
     "the way since, as device does, once they have sent (IP_MTU, IPV6_MTU)."},
    /* datagrams */
    {"broadcast", "", BOOLEAN, UDP, 0, 0, {SOL_SOCKET, SO_BROADCAST}, {0, 0}, NULL,
     "Datagrams may go to broadcast addresses (SO_BROADCAST)."},
    {"receive-errors", "", BOOLEAN, UDP, QUEUES_ERRORS, 0, {IPPROTO_IP, IP_RECVERR},
     {IPPROTO_IPV6, IPV6_RECVERR}, NULL,
     "ICMP messages are reported on unconnected sockets too (IP_RECVERR, IPV6_RECVERR)."},
    {"multicast-ttl", "hops", INTEGER, UDP, 0, 0, {IPPROTO_IP, IP_MULTICAST_TTL},
     {IPPROTO_IPV6, IPV6_MULTICAST_HOPS}, NULL,
     "How far datagrams to groups may go (IP_MULTICAST_TTL, IPV6_MULTICAST_HOPS)."},
    {"multicast-loop", "", BOOLEAN, UDP, 0, 0, {IPPROTO_IP, IP_MULTICAST_LOOP},
     {IPPROTO_IPV6, IPV6_MULTICAST_LOOP}, NULL,
     "Members on this machine get them too (IP_MULTICAST_LOOP, IPV6_MULTICAST_LOOP)."},
    {"multicast-interface", "", INTERFACE, UDP, HAS_NONE, 0, {IPPROTO_IP, IP_MULTICAST_IF},
     {IPPROTO_IPV6, IPV6_MULTICAST_IF}, NULL,
     "Which interface they leave by; none: as routed (IP_MULTICAST_IF, IPV6_MULTICAST_IF)."},
    /* TCP */
    {"nodelay", "", BOOLEAN, TCP, 0, 0, {IPPROTO_TCP, TCP_NODELAY}, {0, 0}, NULL,
     "Small pieces are sent at once, without Nagle's algorithm (TCP_NODELAY)."},
    {"cork", "", BOOLEAN, TCP, 0, 0, {IPPROTO_TCP, TCP_CORK}, {0, 0}, NULL,
     "Only full segments are sent, until it is off again, or for 200 ms (TCP_CORK)."},
    {"quick-ack", "", BOOLEAN, TCP, 0, 0, {IPPROTO_TCP, TCP_QUICKACK}, {0, 0}, NULL,
     "Acknowledgements are not delayed; the system may change it again (TCP_QUICKACK)."},
    {"keepalive", "", BOOLEAN, TCP, 0, 0, {SOL_SOCKET, SO_KEEPALIVE}, {0, 0}, NULL,
     "Probes an idle connection, so that a peer that is gone is found out (SO_KEEPALIVE)."},
    {"keepalive-idle", "seconds", TIME, TCP, 0, 0, {IPPROTO_TCP, TCP_KEEPIDLE}, {0, 0}, NULL,
     "How long a connection is idle before the first probe (TCP_KEEPIDLE)."},
    {"keepalive-interval", "seconds", TIME, TCP, 0, 0, {IPPROTO_TCP, TCP_KEEPINTVL}, {0, 0}, NULL,
     "Between two probes (TCP_KEEPINTVL)."},
    {"keepalive-count", "probes", INTEGER, TCP, 0, 0, {IPPROTO_TCP, TCP_KEEPCNT}, {0, 0}, NULL,
     "Without an answer to so many the connection is dead (TCP_KEEPCNT)."},
    {"user-timeout", "milliseconds", TIME, TCP, HAS_NONE, 0, {IPPROTO_TCP, TCP_USER_TIMEOUT},
     {0, 0}, NULL,
     "How long sent octets may stay without acknowledgement, or octets wait for a peer that lives "
     "and does not read, before the connection is dead; none: as the system thinks, many minutes "
     "(TCP_USER_TIMEOUT, RFC 5482)."},
    {"defer-accept", "seconds", TIME, TCP, HAS_NONE, 0, {IPPROTO_TCP, TCP_DEFER_ACCEPT}, {0, 0},
     NULL, "A listener hands out connections once they have input, or after this time; the system "
     "rounds it up to its retransmissions (TCP_DEFER_ACCEPT)."},
    {"orphan-timeout", "seconds", TIME, TCP, 0, 0, {IPPROTO_TCP, TCP_LINGER2}, {0, 0}, NULL,
     "How long the system keeps a closed connection in FIN_WAIT2 (TCP_LINGER2)."},
    {"syn-count", "segments", INTEGER, TCP, 0, 0, {IPPROTO_TCP, TCP_SYNCNT}, {0, 0}, NULL,
     "How often a connect sends its SYN again; to be set when the socket is opened (TCP_SYNCNT)."},
    {"max-segment", "octets", INTEGER, TCP, 0, 0, {IPPROTO_TCP, TCP_MAXSEG}, {0, 0}, NULL,
     "The longest segment; to be set when the socket is opened, or its listener (TCP_MAXSEG)."},
    {"window-clamp", "octets", INTEGER, TCP, HAS_NONE, 0, {IPPROTO_TCP, TCP_WINDOW_CLAMP}, {0, 0},
     NULL, "The widest window that is offered to the peer; it cannot be set to none again "
     "(TCP_WINDOW_CLAMP)."},
    {"not-sent-low-water", "octets", INTEGER, TCP, HAS_NONE, -1, {IPPROTO_TCP, TCP_NOTSENT_LOWAT},
     {0, 0}, NULL, "Above so many octets not yet sent there is no room for more; 0, as at first: "
     "what the system has for all, none unless its owner has set it (TCP_NOTSENT_LOWAT)."},
    {"fast-open", "connections", INTEGER, TCP, 0, 0, {IPPROTO_TCP, TCP_FASTOPEN}, {0, 0}, NULL,
     "How many connections a listener takes with data in their SYN, RFC 7413 (TCP_FASTOPEN)."},
    {"congestion-control", "", TEXT, TCP, 0, 0, {IPPROTO_TCP, TCP_CONGESTION}, {0, 0}, NULL,
     "The name of its algorithm, such as cubic (TCP_CONGESTION)."},
    /* the rest */
    {"oob-inline", "", BOOLEAN, TCP, 0, 0, {SOL_SOCKET, SO_OOBINLINE}, {0, 0}, NULL,
     "Urgent octets stay among the others (SO_OOBINLINE)."},
    {"debug", "", BOOLEAN, ALL, 0, 0, {SOL_SOCKET, SO_DEBUG}, {0, 0}, NULL,
     "The system records what happens; needs a privilege (SO_DEBUG)."},
    {"pass-credentials", "", BOOLEAN, LOCAL, 0, 0, {SOL_SOCKET, SO_PASSCRED}, {0, 0}, NULL,
     "Messages come with the credentials of their sender, from when it is on (SO_PASSCRED)."},
};
/* clang-format on */

enum { OPTION_COUNT = sizeof options / sizeof options[0] };

/* ---- the table, read ------------------------------------------------------------------------- */

const struct lport_option *lport_option_row(int32_t index) {
    return index >= 0 && index < OPTION_COUNT ? &options[index] : NULL;
}

const char *lport_option_name(int32_t index) {
    const struct lport_option *option = lport_option_row(index);
    return option != NULL ? option->name : NULL;
}

const char *lport_option_kind(int32_t index) {
    const struct lport_option *option = lport_option_row(index);
    return option != NULL ? shape_names[option->shape] : NULL;
}

const char *lport_option_unit(int32_t index) {
    const struct lport_option *option = lport_option_row(index);
    return option != NULL ? option->unit : NULL;
}

const char *lport_option_sockets(int32_t index) {
    const struct lport_option *option = lport_option_row(index);
    for (size_t i = 0; option != NULL && i < sizeof audiences / sizeof audiences[0]; i++) {
        if (option->sockets == audiences[i].sockets) {
            return audiences[i].text;
        }
    }
    return NULL;
}

const char *lport_option_note(int32_t index) {
    const struct lport_option *option = lport_option_row(index);
    return option != NULL ? option->note : NULL;
}

const char *lport_option_choice(int32_t index, int32_t choice) {
    const struct lport_option *option = lport_option_row(index);
    if (option == NULL || option->choices == NULL || choice < 0) {
        return NULL;
    }
    const struct choice *choices = option->choices;
    while (choice > 0 && choices->name != NULL) {
        choices++;
        choice--;
    }
    return choices->name;
}

int64_t lport_option_access(int32_t index) {
    const struct lport_option *option = lport_option_row(index);
    if (option == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    return ((option->flags & READ_ONLY) == 0 ? LPORT_OPTION_WRITABLE : 0) |
           ((option->flags & HAS_NONE) != 0 ? LPORT_OPTION_NONE : 0);
}
