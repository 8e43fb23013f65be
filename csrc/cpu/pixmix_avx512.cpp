#define ENTPROP_ISA entprop::avx512
#include "pixmix_loops.h"
