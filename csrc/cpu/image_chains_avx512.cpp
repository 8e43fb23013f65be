// Blends and mixtures are Pillow's and PyTorch's: a product and a sum, each rounded.
#if defined(__clang__)
#pragma clang fp contract(off)
#else
#pragma GCC optimize("fp-contract=off")
#endif
#define ENTPROP_ISA entprop::avx512
#include "image_chains_loops.h"
