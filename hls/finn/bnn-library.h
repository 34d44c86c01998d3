// What FINN's generated C++ calls of finn-hlslib, in plain C++: the functions' meaning, not their hardware.
//
// finn-hlslib is not in FINN's package. These headers bear its headers' names, so that the code for Vitis HLS
// compiles as it is. They show whether FINN's calls and their parameters are right, and test nothing of AMD's.
#pragma once

#include <ap_int.h>
#include <hls_stream.h>
#include <hls_vector.h>

#include "interpret.hpp"
#include "mvau.hpp"
#include "vvau.hpp"
