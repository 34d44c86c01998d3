// Beats of a DMA engine, 64 bits, and the tensors of a network between its streams.
//
// An element lies in C bits of a beat. A word, LANES elements, takes the next power of two of elements within a beat, or
// whole beats where it is longer than one; an image, WORDS words, takes whole beats. TLAST ends an image that comes out;
// that of what goes in, and TKEEP, are not looked at: beats are counted.
#ifndef QHW_BEATS_H_
#define QHW_BEATS_H_

#include <cstdint>

#include "ap_axi_sdata.h"
#include "ap_int.h"
#include "hls_stream.h"

namespace qhw {

typedef ap_axiu<64, 0, 0, 0> Beat;

template <int LANES, int C, int WORDS> struct BeatLayout {
    static const int in_beat = 64 / C;
    static constexpr int power(int n) { return n <= 1 ? 1 : 2 * power((n + 1) / 2); }
    static const int room = power(LANES);
    static const bool is_long = room > in_beat;
    static const int beats_of_word = is_long ? (LANES + in_beat - 1) / in_beat : 1;
    static const int words_of_beat = is_long ? 1 : in_beat / room;
    static const int beats = is_long ? WORDS * beats_of_word : (WORDS + words_of_beat - 1) / words_of_beat;
};

// The element that lies in the lowest bits.
template <class T, int W> T element(uint64_t bits) {
    #pragma HLS INLINE
    T found;
    found.range(W - 1, 0) = ap_uint<W>(bits);
    return found;
}

// An element in C bits, sign-extended where it is signed.
template <class T, int W, int C, bool SIGNED> uint64_t contained(T value) {
    #pragma HLS INLINE
    ap_uint<W> bits = value.range(W - 1, 0);
    uint64_t extended = SIGNED ? uint64_t(ap_int<W>(bits).to_int64()) : bits.to_uint64();
    return extended & ~uint64_t(0) >> (64 - C);
}

inline Beat beat_of(uint64_t data, bool is_last) {
    #pragma HLS INLINE
    Beat beat;
    beat.data = data;
    beat.keep = -1;
    beat.strb = -1;
    beat.last = is_last;
    return beat;
}

// Reads words of a stream (an nnet::array of LANES elements of W bits) from beats.
template <class word_T, int LANES, int W, int C, int WORDS>
void words_from_beats(hls::stream<Beat> &beats, hls::stream<word_T> &words) {
    typedef BeatLayout<LANES, C, WORDS> layout;
    uint64_t held = 0;
    int left = 0; // words of the held beat that are still to come
    for (int i = 0; i < WORDS; i++) {
        #pragma HLS PIPELINE
        word_T word;
        for (int b = 0; b < layout::beats_of_word; b++) {
            if (left == 0)
                held = beats.read().data.to_uint64();
            for (int k = 0; k < layout::in_beat && b * layout::in_beat + k < LANES; k++) {
                #pragma HLS UNROLL
                word[b * layout::in_beat + k] = element<typename word_T::value_type, W>(held >> k * C);
            }
        }
        left = left == 0 ? layout::words_of_beat - 1 : left - 1;
        if (layout::words_of_beat > 1)
            held >>= layout::room * C % 64;
        words.write(word);
    }
}

// Writes words of a stream to beats.
template <class word_T, int LANES, int W, int C, bool SIGNED, int WORDS>
void beats_from_words(hls::stream<word_T> &words, hls::stream<Beat> &beats) {
    typedef BeatLayout<LANES, C, WORDS> layout;
    uint64_t held = 0;
    int there = 0; // words that the held beat has
    for (int i = 0; i < WORDS; i++) {
        #pragma HLS PIPELINE
        word_T word = words.read();
        for (int b = 0; b < layout::beats_of_word; b++) {
            uint64_t bits = 0;
            for (int k = 0; k < layout::in_beat && b * layout::in_beat + k < LANES; k++) {
                #pragma HLS UNROLL
                bits |= contained<typename word_T::value_type, W, C, SIGNED>(word[b * layout::in_beat + k]) << k * C;
            }
            held |= bits << there * layout::room * C % 64;
            bool is_last = i == WORDS - 1 && b == layout::beats_of_word - 1;
            if (layout::is_long || there == layout::words_of_beat - 1 || is_last) {
                beats.write(beat_of(held, is_last));
                held = 0;
                there = 0;
            } else {
                there++;
            }
        }
    }
}

// The same for arrays of N elements, as words of one.
template <class T, int W, int C, int N> void elements_from_beats(hls::stream<Beat> &beats, T elements[N]) {
    typedef BeatLayout<1, C, N> layout;
    uint64_t held = 0;
    for (int i = 0; i < N; i++) {
        #pragma HLS PIPELINE
        if (i % layout::in_beat == 0)
            held = beats.read().data.to_uint64();
        elements[i] = element<T, W>(held);
        held >>= C % 64;
    }
}

template <class T, int W, int C, bool SIGNED, int N>
void beats_from_elements(T elements[N], hls::stream<Beat> &beats) {
    typedef BeatLayout<1, C, N> layout;
    uint64_t held = 0;
    for (int i = 0; i < N; i++) {
        #pragma HLS PIPELINE
        int place = i % layout::in_beat;
        held |= contained<T, W, C, SIGNED>(elements[i]) << place * C;
        if (place == layout::in_beat - 1 || i == N - 1) {
            beats.write(beat_of(held, i == N - 1));
            held = 0;
        }
    }
}

} // namespace qhw

#endif
