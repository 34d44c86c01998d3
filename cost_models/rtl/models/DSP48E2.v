// For simulation only: a DSP48E2 as the units here use it (AMD UG579, figure 2-1): A, B, M, OPMODE and P are
// registered once; P = Z + W + X + Y with X and Y the product or 0, Z = 0 or P, W = 0 or C, C registered or not.
module DSP48E2 #(
    parameter AREG = 1, ACASCREG = 1, BREG = 1, BCASCREG = 1, MREG = 1, PREG = 1, OPMODEREG = 1,
    parameter ADREG = 1, ALUMODEREG = 1, CARRYINREG = 1, CARRYINSELREG = 1, CREG = 1, DREG = 1, INMODEREG = 1
) (
    input  CLK,
    input  [29:0] A,
    input  [17:0] B,
    input  [47:0] C,
    input  [26:0] D,
    input  [8:0] OPMODE,
    input  [3:0] ALUMODE,
    input  [4:0] INMODE,
    input  [2:0] CARRYINSEL,
    input  CARRYIN,
    input  CEA1, CEA2, CEB1, CEB2, CEM, CEP, CECTRL, CEAD, CEALUMODE, CEC, CECARRYIN, CED, CEINMODE,
    input  RSTA, RSTALLCARRYIN, RSTALUMODE, RSTB, RSTC, RSTCTRL, RSTD, RSTINMODE, RSTM, RSTP,
    output reg [47:0] P
);
    reg signed [26:0] a;
    reg signed [17:0] b;
    reg signed [44:0] m;
    reg [8:0] opmode;
    wire signed [47:0] product = m;
    wire [47:0] x_and_y = opmode[3:0] == 4'b0101 ? product : 48'b0;
    wire [47:0] z = opmode[6:4] == 3'b010 ? P : 48'b0;
    wire [47:0] w = opmode[8:7] == 2'b11 ? C : 48'b0;
    always @(posedge CLK) begin
        if (CEA2) a <= A[26:0];
        if (CEB2) b <= B;
        if (CEM) m <= a * b;
        if (CECTRL) opmode <= OPMODE;
        if (CEP) P <= w + x_and_y + z;
    end
endmodule
