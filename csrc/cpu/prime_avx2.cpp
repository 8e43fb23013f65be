#define ENTPROP_ISA entprop::avx2
#include "prime_loops.h"
