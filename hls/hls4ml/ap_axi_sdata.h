// A beat of an AXI4-Stream for the C-simulation. Vitis HLS has its own header of this name, which synthesis takes.
#ifndef QHW_AP_AXI_SDATA_H_
#define QHW_AP_AXI_SDATA_H_

#include "ap_int.h"

// Of D bits of data; TUSER, TID and TDEST are left out where they have no bits, as here.
template <int D, int U, int TI, int TD> struct ap_axiu {
    static_assert(U == 0 && TI == 0 && TD == 0, "beats carry data, TKEEP, TSTRB and TLAST alone");
    ap_uint<D> data;
    ap_uint<(D + 7) / 8> keep;
    ap_uint<(D + 7) / 8> strb;
    ap_uint<1> last;
};

#endif
