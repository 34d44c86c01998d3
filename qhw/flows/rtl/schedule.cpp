// The machines of schedule.py, clocked in C++: the same counters, the same order of asking.
#include <cstddef>
#include <cstdint>
#include <vector>

namespace {

enum Kind { QUEUE, PIPELINE, GEAR, PADDED, CROPPED, FORK, JOINED, GATHERED, FOLDED };

struct Component {
    int kind;
    const int64_t* p;           // parameters, in the order of `Timing.numbers`
    const uint8_t* within;      // of a padded or cropped image: which words belong to it
    std::vector<int> in, out;
    // Counters, by kind.
    int64_t count = 0, place = 0, level = 0, word = 0, column = 0, row = 0, in_sum = 0, most = 0;
    uint64_t flight_low = 0, flight_high = 0;
    bool shows = false, full = false, reading = false, closing = false, held_0 = false, held_1 = false;
    std::vector<uint8_t> taken;

    bool last() const { return flight_low & 1; }

    void shift(int64_t depth, bool enters) {
        flight_low = flight_low >> 1 | flight_high << 63;
        flight_high >>= 1;
        if (!enters) return;
        if (depth > 64) flight_high |= uint64_t{1} << (depth - 65);
        else flight_low |= uint64_t{1} << (depth - 1);
    }

    void valid(uint8_t* v) const {
        switch (kind) {
            case QUEUE: v[out[0]] = shows; break;
            case PIPELINE: v[out[0]] = last(); break;
            case GEAR: v[out[0]] = count >= p[1]; break;
            case PADDED: v[out[0]] = v[in[0]] || !within[place]; break;
            case CROPPED: v[out[0]] = v[in[0]] && within[place]; break;
            case FORK:
                for (std::size_t i = 0; i < out.size(); i++) v[out[i]] = v[in[0]] && !taken[i];
                break;
            case JOINED: v[out[0]] = v[in[place >= p[0]]]; break;
            case GATHERED: v[out[0]] = held_1; break;
            case FOLDED: v[out[0]] = (level >= p[1] || in_sum == 0) && last(); break;
        }
    }

    bool gear_ready(bool taken_out) const {
        if (p[0] % p[1] == 0) return count == 0 || (count == p[1] && taken_out);
        if (p[1] % p[0] == 0) return count != p[1] || taken_out;
        return count <= p[1];
    }

    void ready(const uint8_t* v, uint8_t* r) const {
        switch (kind) {
            case QUEUE: r[in[0]] = count != p[0]; break;
            case PIPELINE: {
                const bool moves = r[out[0]] || !last();
                if (in.size() == 1) r[in[0]] = moves;
                else r[in[0]] = r[in[1]] = moves && v[in[0]] && v[in[1]];
                break;
            }
            case GEAR: r[in[0]] = gear_ready(r[out[0]]); break;
            case PADDED: r[in[0]] = r[out[0]] && within[place]; break;
            case CROPPED: r[in[0]] = r[out[0]] || !within[place]; break;
            case FORK: {
                bool all = true;
                for (std::size_t i = 0; i < out.size(); i++) all = all && (taken[i] || r[out[i]]);
                r[in[0]] = all;
                break;
            }
            case JOINED:
                r[in[0]] = r[out[0]] && place < p[0];
                r[in[1]] = r[out[0]] && place >= p[0];
                break;
            case GATHERED: r[in[0]] = !full; break;
            case FOLDED: r[in[0]] = level < p[0]; break;
        }
    }

    void clock(const uint8_t* v, const uint8_t* r) {
        switch (kind) {
            case QUEUE: {
                const bool push = v[in[0]] && count != p[0];
                if (!shows || r[out[0]]) {
                    shows = count != 0;
                    count -= shows;
                }
                count += push;
                if (count > most) most = count;
                break;
            }
            case PIPELINE:
                if (r[out[0]] || !last()) shift(p[0], v[in[0]] && (in.size() == 1 || v[in[1]]));
                break;
            case GEAR: {
                const bool push = v[in[0]] && gear_ready(r[out[0]]), pull = count >= p[1] && r[out[0]];
                count += push * p[0] - pull * p[1];
                break;
            }
            case PADDED:
                if (r[out[0]] && (v[in[0]] || !within[place])) place = (place + 1) % p[0];
                break;
            case CROPPED:
                if (v[in[0]] && (r[out[0]] || !within[place])) place = (place + 1) % p[0];
                break;
            case FORK: {
                if (!v[in[0]]) break;
                bool all = true;
                for (std::size_t i = 0; i < out.size(); i++) {
                    taken[i] = taken[i] || r[out[i]];
                    all = all && taken[i];
                }
                if (all) taken.assign(out.size(), 0);
                break;
            }
            case JOINED:
                if (r[out[0]] && v[in[place >= p[0]]]) place = (place + 1) % (p[0] + p[1]);
                break;
            case GATHERED: {
                const bool enable = r[out[0]] || !held_1, write = v[in[0]] && !full, step = enable && reading;
                if (enable) {
                    held_1 = held_0;
                    held_0 = reading;
                }
                if (enable && closing) closing = full = false;
                if (write) {
                    count = (count + 1) % p[0];
                    if (count == 0) full = reading = true;
                }
                if (step) {
                    place = (place + 1) % p[1];
                    if (place == 0) {
                        reading = false;
                        closing = true;
                    }
                }
                break;
            }
            case FOLDED: {
                // depth, span, sum_words, edges, reads, columns, rows, released three times
                const bool there = level >= p[1], write = v[in[0]] && level < p[0];
                if ((there || in_sum == 0) && (r[out[0]] || !last())) {
                    bool ends = false;
                    if (there) {
                        ends = ++in_sum == p[2];
                        if (ends) in_sum = 0;
                        if (++word == p[4]) {
                            word = 0;
                            const bool line = column == p[5] - 1, image = line && row == p[6] - 1;
                            level -= p[7 + line + image];
                            column = line ? 0 : column + 1;
                            if (line) row = image ? 0 : row + 1;
                        }
                    }
                    shift(p[3], ends);
                }
                level += write;
                break;
            }
        }
    }
};

}  // namespace

// 0: as many images have ended; 1: no word entered or left for `longest` cycles.
// Of component i: kinds[i], numbers[16 * i] and on, within[at[i]] and on, and its wires: ends[i] of them inputs, then
// outputs, from wires[starts[i]] to wires[starts[i + 1]].
extern "C" int schedule(
    int64_t count, const int64_t* kinds, const int64_t* numbers, const uint8_t* within, const int64_t* at,
    const int64_t* wires, const int64_t* starts, const int64_t* inputs_of, int64_t all_wires, int64_t inputs,
    const int64_t* input_wires, const int64_t* input_words, int64_t outputs, const int64_t* output_wires,
    const int64_t* output_words, int64_t images, int64_t longest, int64_t* begin, int64_t* ends, int64_t* most
) {
    std::vector<Component> all(count);
    for (int64_t i = 0; i < count; i++) {
        Component& one = all[i];
        one.kind = static_cast<int>(kinds[i]);
        one.p = numbers + 16 * i;
        one.within = within + at[i];
        for (int64_t j = starts[i]; j < starts[i + 1]; j++)
            (j < starts[i] + inputs_of[i] ? one.in : one.out).push_back(static_cast<int>(wires[j]));
        one.taken.assign(one.out.size(), 0);
    }
    std::vector<uint8_t> valid(all_wires, 0), ready(all_wires, 0);
    std::vector<int64_t> given(inputs, 0), got(outputs, 0);
    for (int64_t i = 0; i < outputs; i++) ready[output_wires[i]] = 1;
    int64_t ended = 0, quiet = 0;
    *begin = -1;
    for (int64_t cycle = 0; ended < images; cycle++) {
        for (int64_t i = 0; i < inputs; i++) valid[input_wires[i]] = given[i] < input_words[i] * images;
        for (auto& one : all) one.valid(valid.data());
        for (int64_t i = count - 1; i >= 0; i--) all[i].ready(valid.data(), ready.data());
        bool moved = false;
        for (int64_t i = 0; i < inputs; i++)
            if (valid[input_wires[i]] && ready[input_wires[i]]) {
                if (*begin < 0) *begin = cycle;
                given[i]++;
                moved = true;
            }
        for (int64_t i = 0; i < outputs; i++)
            if (valid[output_wires[i]]) {
                got[i]++;
                moved = true;
                if (i == 0 && got[0] % output_words[0] == 0) ends[ended++] = cycle;
            }
        for (auto& one : all) one.clock(valid.data(), ready.data());
        quiet = moved ? 0 : quiet + 1;
        if (quiet > longest) return 1;
    }
    for (int64_t i = 0; i < count; i++) most[i] = all[i].most;
    return 0;
}
