#define ENTPROP_ISA entprop::avx2
#include "pixmix_loops.h"
