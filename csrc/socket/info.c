/* info - what the system knows of a TCP connection, and of the memory of any socket, by name
 * (layer 2). Stands on os, status, handle.
 *
 * Invariant: a field's name, its kind and its place in one of the system's structures stand in one
 * row. A kernel that is older than this file gives shorter ones, or none; what they do not have is
 * none. */
#include "base/os.h"
#include "handle.h"
#include "libport.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

enum kind { COUNT, OCTETS, MICROSECONDS, MILLISECONDS, RATE, STATE };

static const char *const kind_names[] = {
    [COUNT] = "count",       [OCTETS] = "octets", [MICROSECONDS] = "time",
    [MILLISECONDS] = "time", [RATE] = "rate",     [STATE] = "state",
};

/* Where fields are from: struct tcp_info, and numbers of 32 bits. */
enum source { TCP, MEMORY, SOURCE_COUNT };

static const struct {
    int level, name; /* of getsockopt */
} options[SOURCE_COUNT] = {
    [TCP] = {IPPROTO_TCP, TCP_INFO},
    [MEMORY] = {SOL_SOCKET, SO_MEMINFO},
};

static const struct field {
    const char *name, *note;
    enum kind kind;
    enum source source;
    uint32_t at, size; /* in what that gives */
    uint64_t none;     /* the number that stands for none, or 0 */
} fields[] = {
#define FIELD(name, kind, member, none, note)                                                      \
    {                                                                                              \
        name, note, kind, TCP, offsetof(struct tcp_info, member),                                  \
            sizeof(((struct tcp_info *)0)->member), none                                           \
    }
    FIELD("state", STATE, tcpi_state, 0, "State of the connection, RFC 9293 3.3.2."),
    FIELD("rtt", MICROSECONDS, tcpi_rtt, 0, "Round trip time, smoothed."),
    FIELD("rtt-variance", MICROSECONDS, tcpi_rttvar, 0, "Its mean deviation."),
    FIELD("rtt-minimum", MICROSECONDS, tcpi_min_rtt, UINT32_MAX,
          "The shortest of the last minutes."),
    FIELD("retransmission-timeout", MICROSECONDS, tcpi_rto, 0,
          "After so long a segment is sent again, RFC 6298."),
    FIELD("retransmits", COUNT, tcpi_total_retrans, 0, "Segments that were sent again, in all."),
    FIELD("retransmitting", COUNT, tcpi_retransmits, 0,
          "Timeouts in a row for the segment that is being sent again."),
    FIELD("probes", COUNT, tcpi_probes, 0, "Probes without an answer."),
    FIELD("unacknowledged", COUNT, tcpi_unacked, 0,
          "Segments on their way; of a listener: connections in its queue."),
    FIELD("sacked", COUNT, tcpi_sacked, 0,
          "Segments acknowledged out of order; of a listener: its backlog."),
    FIELD("lost", COUNT, tcpi_lost, 0, "Segments taken for lost."),
    FIELD("reordering", COUNT, tcpi_reordering, 0, "How far segments overtake each other."),
    FIELD("duplicates", COUNT, tcpi_dsack_dups, 0, "Segments that the peer got twice."),
    FIELD("congestion-window", COUNT, tcpi_snd_cwnd, 0,
          "Segments that may be on their way, RFC 5681."),
    FIELD("slow-start-threshold", COUNT, tcpi_snd_ssthresh, INT32_MAX,
          "Above so many the window grows slowly; none: not known yet."),
    FIELD("send-window", OCTETS, tcpi_snd_wnd, 0, "What the peer has room for."),
    /* tcpi_rcv_wnd, which headers older than Linux 6.2 lack: the structure only grows. */
    {"receive-window", "What we have offered the peer.", OCTETS, TCP,
     offsetof(struct tcp_info, tcpi_snd_wnd) + sizeof(uint32_t), sizeof(uint32_t), 0},
    FIELD("receive-space", OCTETS, tcpi_rcv_space, 0, "What the receive buffer is tuned for."),
    FIELD("send-segment", OCTETS, tcpi_snd_mss, 0, "The longest segment to the peer."),
    FIELD("receive-segment", OCTETS, tcpi_rcv_mss, 0, "The longest segment from the peer."),
    FIELD("path-mtu", OCTETS, tcpi_pmtu, 0, "The MTU of the way."),
    FIELD("since-sent", MILLISECONDS, tcpi_last_data_sent, 0, "Since data were last sent."),
    FIELD("since-received", MILLISECONDS, tcpi_last_data_recv, 0, "Since data last came."),
    FIELD("octets-acknowledged", OCTETS, tcpi_bytes_acked, 0,
          "What the peer has got, with the SYN and FIN."),
    FIELD("octets-received", OCTETS, tcpi_bytes_received, 0, "What has come, with the FIN."),
    FIELD("octets-sent", OCTETS, tcpi_bytes_sent, 0, "What was sent, repetitions included."),
    FIELD("octets-retransmitted", OCTETS, tcpi_bytes_retrans, 0, "What was sent again."),
    FIELD("octets-not-sent", OCTETS, tcpi_notsent_bytes, 0, "What waits to be sent."),
    FIELD("segments-sent", COUNT, tcpi_segs_out, 0, "Segments sent, empty ones included."),
    FIELD("segments-received", COUNT, tcpi_segs_in, 0, "Segments that came."),
    FIELD("pacing-rate", RATE, tcpi_pacing_rate, UINT64_MAX, "Octets a second that may be sent."),
    FIELD("delivery-rate", RATE, tcpi_delivery_rate, 0,
          "Octets a second that have lately arrived."),
    FIELD("busy-time", MICROSECONDS, tcpi_busy_time, 0, "How long there was something to send."),
#undef FIELD
#define MEMORY_FIELD(name, kind, index, note)                                                      \
    { name, note, kind, MEMORY, (index) * sizeof(uint32_t), sizeof(uint32_t), 0 }
    MEMORY_FIELD("receive-memory", OCTETS, SK_MEMINFO_RMEM_ALLOC,
                 "Memory of what has come and was not read."),
    MEMORY_FIELD("receive-memory-limit", OCTETS, SK_MEMINFO_RCVBUF,
                 "What finds no room below this is dropped, or not offered to the peer."),
    MEMORY_FIELD("send-memory", OCTETS, SK_MEMINFO_WMEM_ALLOC,
                 "Memory of what is on its way out of here; of a local socket: what was not read."),
    MEMORY_FIELD("send-memory-limit", OCTETS, SK_MEMINFO_SNDBUF, "Above this a send waits."),
    MEMORY_FIELD("dropped", COUNT, SK_MEMINFO_DROPS,
                 "Messages, or segments, that came and were dropped, mostly for want of room."),
#undef MEMORY_FIELD
};

enum {
    FIELD_COUNT = sizeof fields / sizeof fields[0],
    INFO_ROOM = 512, /* octets; the longer structure of today's kernels has some 250 */
};

/* What the system gave for one source. */
struct told {
    uint8_t octets[INFO_ROOM];
    socklen_t len;
};

/* By number, linux/tcp_states.h: 1 is TCP_ESTABLISHED. */
static const char *const states[] = {
    "established", "syn-sent",   "syn-received", "fin-wait-1", "fin-wait-2", "time-wait",
    "closed",      "close-wait", "last-ack",     "listen",     "closing",    "syn-received",
};

enum { STATE_COUNT = sizeof states / sizeof states[0] };

static const struct field *field_at(int32_t index) {
    return index >= 0 && index < FIELD_COUNT ? &fields[index] : NULL;
}

const char *lport_info_name(int32_t index) {
    const struct field *field = field_at(index);
    return field != NULL ? field->name : NULL;
}

const char *lport_info_kind(int32_t index) {
    const struct field *field = field_at(index);
    return field != NULL ? kind_names[field->kind] : NULL;
}

const char *lport_info_note(int32_t index) {
    const struct field *field = field_at(index);
    return field != NULL ? field->note : NULL;
}

const char *lport_info_state(int64_t state) {
    return state > 0 && state <= STATE_COUNT ? states[state - 1] : NULL;
}

/* The number of SIZE octets at PLACE, in the order of the machine. */
static uint64_t number_at(const uint8_t *place, uint32_t size) {
    uint8_t octet;
    uint32_t word;
    uint64_t wide;
    switch (size) {
    case 1:
        memcpy(&octet, place, sizeof octet);
        return octet;
    case 4:
        memcpy(&word, place, sizeof word);
        return word;
    default:
        memcpy(&wide, place, sizeof wide);
        return wide;
    }
}

static int64_t scaled(uint64_t number, int64_t step) {
    return number < (uint64_t)(LPORT_NEVER / step) ? (int64_t)number * step : LPORT_NEVER;
}

/* The value of FIELD in TOLD. */
static int64_t value_of(const struct field *field, const struct told *told) {
    if (field->at + field->size > told->len) {
        return LPORT_NEVER;
    }
    uint64_t number = number_at(told->octets + field->at, field->size);
    if (field->none != 0 && number == field->none) {
        return LPORT_NEVER;
    }
    switch (field->kind) {
    case MICROSECONDS:
        return scaled(number, 1000);
    case MILLISECONDS:
        return scaled(number, 1000000);
    default:
        return scaled(number, 1);
    }
}

static bool has(const struct lport_slot *slot, enum source source) {
    return source == MEMORY || (slot->family != LPORT_LOCAL && slot->kind == LPORT_STREAM);
}

/* Asks the system for SOURCE of the socket in SLOT. 0 or a status. */
static int64_t ask(const struct lport_slot *slot, int fd, enum source source, struct told *told) {
    told->len = has(slot, source) ? sizeof told->octets : 0;
    if (told->len == 0 || lport_os.getsockopt(fd, options[source].level, options[source].name,
                                              told->octets, &told->len) == 0) {
        return 0;
    }
    told->len = 0;
    return errno == ENOPROTOOPT ? 0 : lport_status_from_errno(LPORT_IN_GENERAL, errno);
}

int64_t lport_info_read(int64_t socket, int64_t *values, int32_t count) {
    struct lport_slot *slot;
    struct told told[SOURCE_COUNT];
    if (count < 0) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t fd = lport_handle_enter(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    int64_t status = slot->family == LPORT_ANY ? lport_status_make(LPORT_NOT_SUPPORTED) : 0;
    for (enum source source = TCP; source < SOURCE_COUNT && status == 0; source++) {
        status = ask(slot, (int)fd, source, &told[source]);
    }
    lport_handle_leave(slot);
    if (status < 0) {
        return status;
    }
    for (int32_t i = 0; i < count && i < FIELD_COUNT; i++) {
        values[i] = value_of(&fields[i], &told[fields[i].source]);
    }
    return FIELD_COUNT;
}
