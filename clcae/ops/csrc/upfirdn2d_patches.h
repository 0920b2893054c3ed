// The fast forms of upfirdn2d for 4 x 4 taps: a thread makes a patch of ROWS x COLS results.
//
// Patches begin at a result whose corner is a sample, so that the taps of every sample are known at
// compile time, and every sample is read once for a patch. Planes
// (NCHW) go through a tile in shared memory; channels_last reads four channels at once, directly.
#pragma once

#include "upfirdn2d.h"

namespace clcae {

constexpr int TAPS = 4;

// Number of samples that `count` results along an axis read.
CLCAE_BOTH constexpr int window(int count, int up, int down) {
  return ((count - 1) * down + TAPS - 1) / up + 1;
}

template <int UP, int DOWN>
struct Patch {
  static constexpr int ROWS = DOWN == 2 ? 2 : 4;
  static constexpr int COLS = 4;       // of a plane
  static constexpr int LAST_COLS = 2;  // where four channels come with every column
  // A tile of planes: 16 x 8 threads.
  static constexpr int THREADS_X = 16, THREADS_Y = 8, THREADS = THREADS_X * THREADS_Y;
  static constexpr int WIDTH = COLS * THREADS_X, HEIGHT = ROWS * THREADS_Y;
  static constexpr int IN_HEIGHT = window(HEIGHT, UP, DOWN), IN_WIDTH = window(WIDTH, UP, DOWN);
  static constexpr int PITCH = (IN_WIDTH + 3) / 4 * 4;
  // Columns of samples from one thread's patch to the next, and how many are read at once.
  static constexpr int STEP = COLS * DOWN / UP, VECTOR = STEP < 4 ? STEP : 4;
};

// First result, at or before 0, whose corner is a sample.
CLCAE_BOTH int first_corner(int64_t pad, int up) {
  const int rest = static_cast<int>(modulo<int64_t>(pad, up));
  return rest ? rest - up : 0;
}

template <class T>
CLCAE_BOTH void read_taps(const Upfirdn2d<T>& op, float (&taps)[TAPS * TAPS]) {
  CLCAE_UNROLL
  for (int i = 0; i < TAPS; ++i) {
    CLCAE_UNROLL
    for (int j = 0; j < TAPS; ++j) taps[i * TAPS + j] = op.tap(i, j) * op.gain;
  }
}

// Adds the contribution of one row of samples, the `y`-th, to the results of a patch.
template <int UP, int DOWN, int ROWS, int COLS, int LANES, int SAMPLES>
CLCAE_BOTH void add_row(const float (&taps)[TAPS * TAPS], int y, const float (&row)[SAMPLES][LANES],
                        float (&sums)[ROWS][COLS][LANES]) {
  CLCAE_UNROLL
  for (int r = 0; r < ROWS; ++r) {
    const int i = y * UP - r * DOWN;
    if (i < 0 || i >= TAPS) continue;
    CLCAE_UNROLL
    for (int c = 0; c < COLS; ++c) {
      CLCAE_UNROLL
      for (int x = 0; x < window(COLS, UP, DOWN); ++x) {
        const int j = x * UP - c * DOWN;
        if (j < 0 || j >= TAPS) continue;
        CLCAE_UNROLL
        for (int lane = 0; lane < LANES; ++lane) {
          sums[r][c][lane] += taps[i * TAPS + j] * row[x][lane];
        }
      }
    }
  }
}

// Planes: position of a tile.
template <int UP, int DOWN>
struct TilePlace {
  using P = Patch<UP, DOWN>;
  int64_t plane;
  int row, column;      // of its first result, possibly before 0
  int from_y, from_x;   // its first sample, possibly outside

  template <class T>
  static CLCAE_BOTH TilePlace of(const Upfirdn2d<T>& op, int64_t tile) {
    const int first_y = first_corner(op.call.pad_y, UP), first_x = first_corner(op.call.pad_x, UP);
    const int64_t across = ceil_div(op.call.out_width - first_x, P::WIDTH);
    const int64_t along = ceil_div(op.call.out_height - first_y, P::HEIGHT);
    const int64_t band = tile / across, plane = band / along;
    TilePlace place;
    place.plane = plane;
    place.row = static_cast<int>(band - plane * along) * P::HEIGHT + first_y;
    place.column = static_cast<int>(tile - band * across) * P::WIDTH + first_x;
    // Exact divisions, thanks to first_corner.
    place.from_y = (place.row * DOWN - static_cast<int>(op.call.pad_y)) / UP;
    place.from_x = (place.column * DOWN - static_cast<int>(op.call.pad_x)) / UP;
    return place;
  }

  static int64_t count(const Upfirdn2dCall& call) {
    const int first_y = first_corner(call.pad_y, UP), first_x = first_corner(call.pad_x, UP);
    return ceil_div(call.out_width - first_x, P::WIDTH) *
           ceil_div(call.out_height - first_y, P::HEIGHT) * call.samples * call.channels;
  }
};

// Planes, first half: loads the samples of a tile to shared memory, zero outside the picture.
template <class T, int UP, int DOWN>
CLCAE_BOTH void fill_tile(const Upfirdn2d<T>& op, int64_t tile, int thread, float* shared) {
  using P = Patch<UP, DOWN>;
  const auto place = TilePlace<UP, DOWN>::of(op, tile);
  const int64_t sample = place.plane / op.call.channels;
  const T* plane = op.plane(sample, place.plane - sample * op.call.channels);
  CLCAE_UNROLL_4  // several reads under way at once
  for (int at = thread; at < P::IN_HEIGHT * P::PITCH; at += P::THREADS) {
    const int y = place.from_y + at / P::PITCH, x = place.from_x + at % P::PITCH;
    const bool inside = y >= 0 && y < op.call.in_height && x >= 0 && x < op.call.in_width;
    shared[at] = inside ? widen(plane[y * op.call.stride_y + x]) : 0.0f;
  }
}

// Planes, second half, after all threads have loaded: computes the patch of one thread.
template <class T, int UP, int DOWN>
CLCAE_BOTH void filter_tile(const Upfirdn2d<T>& op, const float (&taps)[TAPS * TAPS], int64_t tile,
                            int thread, const float* shared) {
  using P = Patch<UP, DOWN>;
  const auto place = TilePlace<UP, DOWN>::of(op, tile);
  const int across = thread % P::THREADS_X, along = thread / P::THREADS_X;
  const float* corner = shared + along * (P::ROWS * DOWN / UP) * P::PITCH + across * P::STEP;
  constexpr int READS = (window(P::COLS, UP, DOWN) + P::VECTOR - 1) / P::VECTOR;
  float sums[P::ROWS][P::COLS][1] = {};
  CLCAE_UNROLL
  for (int y = 0; y < window(P::ROWS, UP, DOWN); ++y) {
    float row[READS * P::VECTOR][1];
    CLCAE_UNROLL
    for (int read = 0; read < READS; ++read) {
      const auto lanes = read_lanes<float, P::VECTOR>(corner + y * P::PITCH + read * P::VECTOR);
      CLCAE_UNROLL
      for (int lane = 0; lane < P::VECTOR; ++lane) row[read * P::VECTOR + lane][0] = lanes.at[lane];
    }
    add_row<UP, DOWN>(taps, y, row, sums);
  }
  const int first = place.column + across * P::COLS;
  CLCAE_UNROLL
  for (int r = 0; r < P::ROWS; ++r) {
    const int out_row = place.row + along * P::ROWS + r;
    if (out_row < 0 || out_row >= op.call.out_height) continue;
    // A row of the result; columns before 0 do not exist.
    T* line = op.y + (place.plane * op.call.out_height + out_row) * op.call.out_width;
    Lanes<T, P::COLS> lanes;
    CLCAE_UNROLL
    for (int c = 0; c < P::COLS; ++c) lanes.at[c] = Narrow<T>::from(sums[r][c][0]);
    const bool whole = first >= 0 && first + P::COLS <= op.call.out_width;
    if (whole && is_aligned<T, P::COLS>(line + first)) {
      write_lanes<T, P::COLS>(line + first, lanes);
      continue;
    }
    CLCAE_UNROLL
    for (int c = 0; c < P::COLS; ++c) {
      if (first + c >= 0 && first + c < op.call.out_width) line[first + c] = lanes.at[c];
    }
  }
}

// Channels last: a strip is ROWS rows of a sample; its threads run along columns and channels.
template <int UP, int DOWN>
struct Strips {
  using P = Patch<UP, DOWN>;

  static CLCAE_BOTH int64_t per_sample(const Upfirdn2dCall& call) {
    return ceil_div(call.out_height - first_corner(call.pad_y, UP), P::ROWS);
  }
  static CLCAE_BOTH int per_strip(const Upfirdn2dCall& call) {  // patches of four channels
    const int64_t across = ceil_div(call.out_width - first_corner(call.pad_x, UP), P::LAST_COLS);
    return static_cast<int>(across * (call.channels / 4));
  }
};

template <class T, int UP, int DOWN>
CLCAE_BOTH void filter_channels(const Upfirdn2d<T>& op, const float (&taps)[TAPS * TAPS],
                                int64_t strip, int patch) {
  using P = Patch<UP, DOWN>;
  constexpr int COLS = P::LAST_COLS, SAMPLES = window(COLS, UP, DOWN);
  const int64_t strips = Strips<UP, DOWN>::per_sample(op.call), sample = strip / strips;
  const int groups = static_cast<int>(op.call.channels / 4), across = patch / groups;
  const int channel = (patch - across * groups) * 4;
  const int row =
      static_cast<int>(strip - sample * strips) * P::ROWS + first_corner(op.call.pad_y, UP);
  const int column = across * COLS + first_corner(op.call.pad_x, UP);
  const int from_y = (row * DOWN - static_cast<int>(op.call.pad_y)) / UP;
  const int from_x = (column * DOWN - static_cast<int>(op.call.pad_x)) / UP;
  const T* plane = op.plane(sample, channel);
  float sums[P::ROWS][COLS][4] = {};
  CLCAE_UNROLL
  for (int y = 0; y < window(P::ROWS, UP, DOWN); ++y) {
    if (from_y + y < 0 || from_y + y >= op.call.in_height) continue;
    float samples[SAMPLES][4];
    CLCAE_UNROLL
    for (int x = 0; x < SAMPLES; ++x) {
      const bool inside = from_x + x >= 0 && from_x + x < op.call.in_width;
      Lanes<T, 4> lanes;
      if (inside) {
        lanes = read_lanes<T, 4>(plane + (from_y + y) * op.call.stride_y +
                                 (from_x + x) * op.call.stride_x);
      }
      CLCAE_UNROLL
      for (int lane = 0; lane < 4; ++lane) samples[x][lane] = inside ? widen(lanes.at[lane]) : 0.0f;
    }
    add_row<UP, DOWN>(taps, y, samples, sums);
  }
  CLCAE_UNROLL
  for (int r = 0; r < P::ROWS; ++r) {
    CLCAE_UNROLL
    for (int c = 0; c < COLS; ++c) {
      const int y = row + r, x = column + c;
      if (y < 0 || y >= op.call.out_height || x < 0 || x >= op.call.out_width) continue;
      Lanes<T, 4> lanes;
      CLCAE_UNROLL
      for (int lane = 0; lane < 4; ++lane) lanes.at[lane] = Narrow<T>::from(sums[r][c][lane]);
      write_lanes<T, 4>(op.y + op.place(sample, channel, y, x), lanes);
    }
  }
}

}  // namespace clcae
