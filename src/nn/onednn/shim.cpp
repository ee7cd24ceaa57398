// oneDNN's convolution with what follows it fused in. libtorch registers it as an operator (its compiler uses it) but
// leaves it out of the functions that the Rust binding wraps.
//
// Tensors come as the binding's handles, which are pointers to at::Tensor. Each function returns a new handle, or null
// with the reason in `error`.

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <algorithm>
#include <cstring>
#include <exception>

namespace {

void push_geometry(torch::jit::Stack &stack, int64_t padding, int64_t stride, int64_t groups) {
  stack.emplace_back(std::vector<int64_t>{padding, padding});
  stack.emplace_back(std::vector<int64_t>{stride, stride});
  stack.emplace_back(std::vector<int64_t>{1, 1}); // dilation
  stack.emplace_back(groups);
}

at::Tensor *call(const char *name, const char *overload, torch::jit::Stack &stack) {
  c10::Dispatcher::singleton().findSchemaOrThrow(name, overload).callBoxed(&stack);
  return new at::Tensor(stack.at(0).toTensor());
}

template <typename F> at::Tensor *guarded(char *error, size_t room, F &&body) {
  try {
    return body();
  } catch (const std::exception &failure) {
    size_t length = std::min(std::strlen(failure.what()), room - 1);
    std::memcpy(error, failure.what(), length);
    error[length] = '\0';
    return nullptr;
  }
}

} // namespace

extern "C" {

// No TF32, no algorithms chosen by a stopwatch, none that add in an order of chance: for the whole process. Functions that take
// no such wishes of their own look here.
void affectmill_be_exact() {
  auto &context = at::globalContext();
  context.setBenchmarkCuDNN(false);
  context.setDeterministicCuDNN(true);
  context.setAllowTF32CuDNN(false);
  context.setAllowTF32CuBLAS(false);
}

// The weight in the layout that oneDNN wants for inputs of this shape.
at::Tensor *affectmill_pack(const at::Tensor *weight, int64_t padding, int64_t stride, int64_t groups,
                            const int64_t *input, char *error, size_t room) {
  return guarded(error, room, [&] {
    torch::jit::Stack stack{*weight};
    push_geometry(stack, padding, stride, groups);
    stack.emplace_back(std::vector<int64_t>(input, input + 4));
    return call("mkldnn::_reorder_convolution_weight", "", stack);
  });
}

// relu(conv(x)), or conv(x).
at::Tensor *affectmill_conv(const at::Tensor *x, const at::Tensor *weight, const at::Tensor *bias, int64_t padding,
                            int64_t stride, int64_t groups, bool relu, char *error, size_t room) {
  return guarded(error, room, [&] {
    torch::jit::Stack stack{*x, *weight, *bias};
    push_geometry(stack, padding, stride, groups);
    stack.emplace_back(std::string(relu ? "relu" : "none"));
    stack.emplace_back(c10::List<std::optional<c10::Scalar>>());
    stack.emplace_back(std::string());
    return call("mkldnn::_convolution_pointwise", "", stack);
  });
}

// relu(conv(x) + sum), written over `sum`.
at::Tensor *affectmill_conv_add_relu(const at::Tensor *sum, const at::Tensor *x, const at::Tensor *weight,
                                     const at::Tensor *bias, int64_t padding, int64_t stride, int64_t groups,
                                     char *error, size_t room) {
  return guarded(error, room, [&] {
    torch::jit::Stack stack{*sum, *x, *weight, *bias};
    push_geometry(stack, padding, stride, groups);
    stack.emplace_back(std::string("add"));
    stack.emplace_back(c10::Scalar(1.0));
    stack.emplace_back(std::string("relu"));
    stack.emplace_back(c10::List<std::optional<c10::Scalar>>());
    stack.emplace_back(std::string());
    return call("mkldnn::_convolution_pointwise_", "binary", stack);
  });
}
}
