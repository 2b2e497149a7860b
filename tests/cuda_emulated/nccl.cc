/*
 * NCCL between the emulated GPUs: instead of src/cuda/nccl_library.c. A message is a copy that the sender's stream
 * makes and the receiver's stream takes. Messages that don't match are errors, and so are streams that wait for each
 * other.
 * ZIMAGE_EMULATED_NCCL=none: there is no NCCL.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "cuda/nccl.h"
#include "emulated.h"

namespace
{

enum { SUCCESS = 0, UNHANDLED = 1, INVALID_ARGUMENT = 4, INVALID_USAGE = 5 };

/* The GPUs that were connected together. */
struct clique {
    std::vector<int> devices;
    std::vector<std::deque<std::string>> mail; /* from * count + to: what was sent and not yet received */

    std::deque<std::string> &from_to(int from, int to)
    {
        return mail[(size_t)from * devices.size() + (size_t)to];
    }
};

struct message {
    zi_nccl_comm comm;
    bool sends;
    void *data;
    size_t bytes;
    int peer;
    cudaStream_t stream;
};

/* A group belongs to a thread, as NCCL's does. */
thread_local std::vector<message> group;
thread_local bool is_open;
int64_t exchanges;

} // namespace

struct ncclComm {
    std::shared_ptr<clique> all;
    int rank;
};

namespace
{

#define LOCKED std::lock_guard<std::recursive_mutex> held(emulated::lock())

int get_version(int *version)
{
    *version = 22807;
    return SUCCESS;
}

const char *get_error_string(int result)
{
    return result == INVALID_USAGE ? "invalid usage" : result == INVALID_ARGUMENT ? "invalid argument" : "an error";
}

int comm_init_all(zi_nccl_comm *comms, int count, const int *devices)
{
    std::shared_ptr<clique> all = std::make_shared<clique>();
    all->devices.assign(devices, devices + count);
    all->mail.resize((size_t)(count * count));
    for (int i = 0; i < count; i++)
        for (int k = 0; k < i; k++)
            if (devices[i] == devices[k])
                return INVALID_USAGE;
    for (int i = 0; i < count; i++)
        comms[i] = new ncclComm{all, i};
    return SUCCESS;
}

int comm_destroy(zi_nccl_comm comm)
{
    delete comm;
    return SUCCESS;
}

int group_start(void)
{
    LOCKED;
    is_open = true;
    group.clear();
    return SUCCESS;
}

int add(const message &m)
{
    LOCKED;
    int device = m.comm->all->devices[(size_t)m.comm->rank];
    if (!is_open || m.peer == m.comm->rank || m.peer < 0 || (size_t)m.peer >= m.comm->all->devices.size())
        return INVALID_USAGE;
    if (!emulated::is_device(m.data, m.bytes) || emulated::device_of(m.data) != device ||
        emulated::device_of_stream(m.stream) != device)
        return INVALID_ARGUMENT;
    group.push_back(m);
    return SUCCESS;
}

int send(const void *data, size_t count, int type, int peer, zi_nccl_comm comm, cudaStream_t stream)
{
    (void)type; /* a byte */
    return add({comm, true, (void *)data, count, peer, stream});
}

int receive(void *data, size_t count, int type, int peer, zi_nccl_comm comm, cudaStream_t stream)
{
    (void)type;
    return add({comm, false, data, count, peer, stream});
}

/* Whether the n-th message from one rank to another is received with its bytes. */
bool match(const std::vector<message> &all)
{
    for (const message &m : all) {
        std::vector<size_t> sent, received;
        for (const message &other : all) {
            int from = m.sends ? m.comm->rank : m.peer, to = m.sends ? m.peer : m.comm->rank;
            if (other.sends && other.comm->rank == from && other.peer == to)
                sent.push_back(other.bytes);
            if (!other.sends && other.comm->rank == to && other.peer == from)
                received.push_back(other.bytes);
        }
        if (sent != received)
            return false;
    }
    return true;
}

/* All messages of one rank. It sends at once, and goes on when everything that it receives is there. */
struct exchange {
    std::vector<message> own;
    std::shared_ptr<bool> has_sent;

    bool is_complete(void) const
    {
        for (const message &m : own)
            if (!m.sends && m.comm->all->from_to(m.peer, m.comm->rank).empty())
                return false;
        return true;
    }

    void run(void) const
    {
        for (const message &m : own)
            if (m.sends && !*has_sent)
                m.comm->all->from_to(m.comm->rank, m.peer).push_back(std::string((const char *)m.data, m.bytes));
        *has_sent = !is_complete();
        if (*has_sent)
            return emulated::postpone();
        for (const message &m : own) {
            if (m.sends)
                continue;
            std::deque<std::string> &mail = m.comm->all->from_to(m.peer, m.comm->rank);
            memcpy(m.data, mail.front().data(), m.bytes);
            mail.pop_front();
        }
    }
};

int group_end(void)
{
    LOCKED;
    std::vector<message> all;
    all.swap(group);
    if (!is_open || !match(all))
        return INVALID_USAGE;
    is_open = false;
    if (all.empty())
        return SUCCESS;
    size_t count = all[0].comm->all->devices.size();
    std::vector<std::vector<message>> of(count);
    for (const message &m : all) {
        if (emulated::is_captured(m.stream) != emulated::is_captured(all[0].stream))
            return INVALID_USAGE;
        of[(size_t)m.comm->rank].push_back(m);
    }
    for (size_t i = 0; i < count; i++) {
        const exchange e = {of[i], std::make_shared<bool>(false)};
        if (!e.own.empty() && emulated::enqueue_anywhere(e.own[0].stream, [e] { e.run(); }) != cudaSuccess)
            return UNHANDLED;
    }
    (void)emulated::enqueue_anywhere(all[0].stream, [] { exchanges++; });
    return SUCCESS;
}

} // namespace

int zi_nccl_load(zi_nccl_functions *functions, char *why, size_t size)
{
    const char *chosen = getenv("ZIMAGE_EMULATED_NCCL");
    snprintf(why, size, "the emulated GPU has none");
    *functions = {get_version, get_error_string, comm_init_all, comm_destroy, group_start, group_end, send, receive};
    return chosen == NULL || strcmp(chosen, "none") != 0;
}

extern "C" __attribute__((visibility("default"))) int64_t zi_emulated_exchanges(void);

/* How many groups of messages there were that held one. Tests ask. */
int64_t zi_emulated_exchanges(void)
{
    LOCKED;
    return exchanges;
}
