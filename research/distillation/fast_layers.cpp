// Depthwise convolution, and batch normalisation with Hardswish, for training on one CPU core.
//
// Maps lie channel by channel at each pixel (N, H, W, C), in float32 or bfloat16; sums are float32.
// The compiler makes vector instructions of the loops over channels.
#include <malloc.h>
#include <torch/extension.h>

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

inline float to_float(float x) { return x; }
inline float to_float(uint16_t x) {
  union { uint32_t i; float f; } u;
  u.i = static_cast<uint32_t>(x) << 16;
  return u.f;
}
template <typename T> inline T from_float(float x);
template <> inline float from_float<float>(float x) { return x; }
template <> inline uint16_t from_float<uint16_t>(float x) {
  union { float f; uint32_t i; } u;
  u.f = x;
  return static_cast<uint16_t>((u.i + 0x7fff + ((u.i >> 16) & 1)) >> 16);
}

// Calls f(start, constant length) for pieces of the channels.
template <typename F> inline void pieces(int64_t channels, F f) {
  int64_t c = 0;
  for (; c + 64 <= channels; c += 64) f(c, std::integral_constant<int, 64>());
  if (c + 32 <= channels) { f(c, std::integral_constant<int, 32>()); c += 32; }
  if (c + 16 <= channels) { f(c, std::integral_constant<int, 16>()); c += 16; }
  if (c + 8 <= channels) { f(c, std::integral_constant<int, 8>()); c += 8; }
  for (; c < channels; ++c) f(c, std::integral_constant<int, 1>());
}

// Calls f(stride), a constant where it is 1 or 2: the division by another one takes longer than
// what is computed.
template <typename F> inline void by_stride(int s, F f) {
  if (s == 1) f(std::integral_constant<int, 1>());
  else if (s == 2) f(std::integral_constant<int, 2>());
  else f(s);
}

template <typename T>
void forward(const T* x, const float* w, T* y, int64_t n, int64_t h, int64_t wd, int64_t oh,
             int64_t ow, int64_t channels, int k, int s, int p) {
  pieces(channels, [&](int64_t c0, auto size) {
    constexpr int L = decltype(size)::value;
    for (int64_t i = 0; i < n; ++i)
      for (int64_t r = 0; r < oh; ++r)
        for (int64_t q = 0; q < ow; ++q) {
          float sum[L] = {};
          for (int a = 0; a < k; ++a) {
            const int64_t ih = r * s + a - p;
            if (ih < 0 || ih >= h) continue;
            for (int b = 0; b < k; ++b) {
              const int64_t iw = q * s + b - p;
              if (iw < 0 || iw >= wd) continue;
              const T* xi = x + ((i * h + ih) * wd + iw) * channels + c0;
              const float* wi = w + (a * k + b) * channels + c0;
              for (int c = 0; c < L; ++c) sum[c] += to_float(xi[c]) * wi[c];
            }
          }
          T* yo = y + ((i * oh + r) * ow + q) * channels + c0;
          for (int c = 0; c < L; ++c) yo[c] = from_float<T>(sum[c]);
        }
  });
}

template <typename T>
void backward(const T* x, const float* w, const T* gy, T* gx, float* gw, int64_t n, int64_t h,
              int64_t wd, int64_t oh, int64_t ow, int64_t channels, int k, int stride, int p) {
  std::fill(gw, gw + k * k * channels, 0.f);
  pieces(channels, [&](int64_t c0, auto size) { by_stride(stride, [&](auto s) {
    constexpr int L = decltype(size)::value;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t r = 0; r < h; ++r)
        for (int64_t q = 0; q < wd; ++q) {
          float sum[L] = {};
          for (int a = 0; a < k; ++a) {
            const int64_t top = r + p - a;
            if (top < 0 || top % s || top / s >= oh) continue;
            for (int b = 0; b < k; ++b) {
              const int64_t left = q + p - b;
              if (left < 0 || left % s || left / s >= ow) continue;
              const T* go = gy + ((i * oh + top / s) * ow + left / s) * channels + c0;
              const float* wi = w + (a * k + b) * channels + c0;
              for (int c = 0; c < L; ++c) sum[c] += to_float(go[c]) * wi[c];
            }
          }
          T* out = gx + ((i * h + r) * wd + q) * channels + c0;
          for (int c = 0; c < L; ++c) out[c] = from_float<T>(sum[c]);
        }
      // Image by image, so that it stays in the cache.
      for (int a = 0; a < k; ++a)
        for (int b = 0; b < k; ++b) {
          float sum[L] = {};
          const int64_t first = std::max<int64_t>(0, (p - b + s - 1) / s);
          const int64_t last = std::min<int64_t>(ow, (wd - 1 + p - b) / s + 1);
          for (int64_t r = 0; r < oh; ++r) {
            const int64_t ih = r * s + a - p;
            if (ih < 0 || ih >= h) continue;
            for (int64_t q = first; q < last; ++q) {
              const T* xi = x + ((i * h + ih) * wd + q * s + b - p) * channels + c0;
              const T* go = gy + ((i * oh + r) * ow + q) * channels + c0;
              for (int c = 0; c < L; ++c) sum[c] += to_float(xi[c]) * to_float(go[c]);
            }
          }
          float* out = gw + (a * k + b) * channels + c0;
          for (int c = 0; c < L; ++c) out[c] += sum[c];
        }
    }
  }); });
}

// Sums over rows of up to two values for each channel, in blocks, so that float32 suffices.
template <typename F>
void sum_rows(int64_t rows, int64_t channels, double* first, double* second, F f) {
  std::vector<float> a(channels), b(channels);
  std::fill(first, first + channels, 0.0);
  std::fill(second, second + channels, 0.0);
  for (int64_t start = 0; start < rows; start += 256) {
    std::fill(a.begin(), a.end(), 0.f);
    std::fill(b.begin(), b.end(), 0.f);
    const int64_t stop = std::min(rows, start + 256);
    for (int64_t m = start; m < stop; ++m) f(m, a.data(), b.data());
    for (int64_t c = 0; c < channels; ++c) {
      first[c] += a[c];
      second[c] += b[c];
    }
  }
}

template <typename T>
void norm_forward(const T* x, const float* gamma, const float* beta, float* mean, float* var, T* y,
                  int64_t rows, int64_t channels, bool act, float eps) {
  std::vector<double> s(channels), q(channels);
  sum_rows(rows, channels, s.data(), q.data(), [&](int64_t m, float* a, float* b) {
    const T* xi = x + m * channels;
#pragma GCC ivdep
    for (int64_t c = 0; c < channels; ++c) {
      const float v = to_float(xi[c]);
      a[c] += v;
      b[c] += v * v;
    }
  });
  std::vector<float> scale(channels), shift(channels);
  for (int64_t c = 0; c < channels; ++c) {
    const double mu = s[c] / rows, v = std::max(q[c] / rows - mu * mu, 0.0);
    mean[c] = mu;
    var[c] = v;
    scale[c] = gamma[c] / std::sqrt(v + eps);
    shift[c] = beta[c] - mu * scale[c];
  }
  const float* sc = scale.data();
  const float* sh = shift.data();
  for (int64_t m = 0; m < rows; ++m) {
    const T* xi = x + m * channels;
    T* yo = y + m * channels;
    if (act) {
#pragma GCC ivdep
      for (int64_t c = 0; c < channels; ++c) {
        const float z = to_float(xi[c]) * sc[c] + sh[c];
        yo[c] = from_float<T>(z * std::min(std::max(z + 3.f, 0.f), 6.f) * (1.f / 6));
      }
    } else {
#pragma GCC ivdep
      for (int64_t c = 0; c < channels; ++c) yo[c] = from_float<T>(to_float(xi[c]) * sc[c] + sh[c]);
    }
  }
}

template <typename T>
void norm_backward(const T* x, const T* gy, const float* gamma, const float* beta,
                   const float* mean, const float* var, T* gx, float* ggamma, float* gbeta,
                   int64_t rows, int64_t channels, bool act, float eps) {
  std::vector<float> inv(channels), neg(channels);
  for (int64_t c = 0; c < channels; ++c) {
    inv[c] = 1.f / std::sqrt(var[c] + eps);
    neg[c] = -mean[c] * inv[c];
  }
  const float* iv = inv.data();
  const float* ng = neg.data();
  auto slope = [act](float z) {
    if (!act) return 1.f;
    const float inner = (2.f * z + 3.f) * (1.f / 6);
    return z <= -3.f ? 0.f : (z >= 3.f ? 1.f : inner);
  };
  std::vector<double> s(channels), q(channels);
  sum_rows(rows, channels, s.data(), q.data(), [&](int64_t m, float* a, float* b) {
    const T* xi = x + m * channels;
    const T* go = gy + m * channels;
#pragma GCC ivdep
    for (int64_t c = 0; c < channels; ++c) {
      const float hat = to_float(xi[c]) * iv[c] + ng[c];
      const float g = to_float(go[c]) * slope(hat * gamma[c] + beta[c]);
      a[c] += g;
      b[c] += g * hat;
    }
  });
  std::vector<float> k0(channels), k1(channels), k2(channels);
  for (int64_t c = 0; c < channels; ++c) {
    gbeta[c] = s[c];
    ggamma[c] = q[c];
    k0[c] = gamma[c] * inv[c];
    k1[c] = s[c] / rows;
    k2[c] = q[c] / rows;
  }
  const float *p0 = k0.data(), *p1 = k1.data(), *p2 = k2.data();
  for (int64_t m = 0; m < rows; ++m) {
    const T* xi = x + m * channels;
    const T* go = gy + m * channels;
    T* out = gx + m * channels;
#pragma GCC ivdep
    for (int64_t c = 0; c < channels; ++c) {
      const float hat = to_float(xi[c]) * iv[c] + ng[c];
      const float g = to_float(go[c]) * slope(hat * gamma[c] + beta[c]);
      out[c] = from_float<T>(p0[c] * (g - p1[c] - hat * p2[c]));
    }
  }
}

// f(pointer type) for the storage of a tensor.
template <typename F> void by_type(const at::Tensor& x, F f) {
  if (x.scalar_type() == at::kBFloat16) f(static_cast<uint16_t*>(nullptr));
  else if (x.scalar_type() == at::kFloat) f(static_cast<float*>(nullptr));
  else TORCH_CHECK(false, "maps must be float32 or bfloat16, got ", x.scalar_type());
}
template <typename T> T* at_(const at::Tensor& x) { return static_cast<T*>(x.data_ptr()); }

}  // namespace

// x (N, H, W, C), w (K*K, C) float32.
at::Tensor depthwise(const at::Tensor& x, const at::Tensor& w, int64_t k, int64_t s, int64_t p) {
  TORCH_CHECK(x.is_contiguous() && w.is_contiguous());
  const int64_t n = x.size(0), h = x.size(1), wd = x.size(2), c = x.size(3);
  const int64_t oh = (h + 2 * p - k) / s + 1, ow = (wd + 2 * p - k) / s + 1;
  auto y = at::empty({n, oh, ow, c}, x.options());
  by_type(x, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    forward<T>(at_<T>(x), at_<float>(w), at_<T>(y), n, h, wd, oh, ow, c, k, s, p);
  });
  return y;
}

std::vector<at::Tensor> depthwise_backward(const at::Tensor& x, const at::Tensor& w,
                                           const at::Tensor& gy, int64_t k, int64_t s, int64_t p) {
  TORCH_CHECK(x.is_contiguous() && w.is_contiguous() && gy.is_contiguous());
  TORCH_CHECK(gy.scalar_type() == x.scalar_type());
  auto gx = at::empty_like(x), gw = at::empty_like(w);
  by_type(x, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    backward<T>(at_<T>(x), at_<float>(w), at_<T>(gy), at_<T>(gx), at_<float>(gw), x.size(0),
                x.size(1), x.size(2), gy.size(1), gy.size(2), x.size(3), k, s, p);
  });
  return {gx, gw};
}

// x (rows, C). Returns y, mean, variance (biased).
std::vector<at::Tensor> norm(const at::Tensor& x, const at::Tensor& gamma, const at::Tensor& beta,
                             bool act, double eps) {
  TORCH_CHECK(x.is_contiguous());
  auto y = at::empty_like(x), mean = at::empty_like(gamma), var = at::empty_like(gamma);
  by_type(x, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    norm_forward<T>(at_<T>(x), at_<float>(gamma), at_<float>(beta), at_<float>(mean),
                    at_<float>(var), at_<T>(y), x.numel() / x.size(-1), x.size(-1), act, eps);
  });
  return {y, mean, var};
}

std::vector<at::Tensor> norm_backward_(const at::Tensor& x, const at::Tensor& gy,
                                       const at::Tensor& gamma, const at::Tensor& beta,
                                       const at::Tensor& mean, const at::Tensor& var, bool act,
                                       double eps) {
  TORCH_CHECK(x.is_contiguous() && gy.is_contiguous() && gy.scalar_type() == x.scalar_type());
  auto gx = at::empty_like(x), gg = at::empty_like(gamma), gb = at::empty_like(gamma);
  by_type(x, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    norm_backward<T>(at_<T>(x), at_<T>(gy), at_<float>(gamma), at_<float>(beta), at_<float>(mean),
                     at_<float>(var), at_<T>(gx), at_<float>(gg), at_<float>(gb),
                     x.numel() / x.size(-1), x.size(-1), act, eps);
  });
  return {gx, gg, gb};
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  // Keep the memory of maps: to get it anew page by page takes a tenth of a step.
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, INT_MAX);
  m.def("depthwise", &depthwise);
  m.def("depthwise_backward", &depthwise_backward);
  m.def("norm", &norm);
  m.def("norm_backward", &norm_backward_);
}
