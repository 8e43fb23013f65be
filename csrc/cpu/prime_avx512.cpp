#define ENTPROP_ISA entprop::avx512
#include "prime_loops.h"
