#define ENTPROP_ISA entprop::avx512
#include "table.h"
