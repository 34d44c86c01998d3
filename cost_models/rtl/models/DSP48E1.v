// For simulation only: a DSP48E1 as the units here use it (AMD UG479, figure 2-1). P = Z + X + Y with X and Y the product or 0,
// Z = 0 or P. The product is A * B, or (D - A) * B through the pre-adder, whose INMODE must then be 01100.
// M and P are registered once; A, B, D, AD and OPMODE as their parameters say (A once; B once or twice).
module DSP48E1 #(
    parameter AREG = 1, ACASCREG = 1, BREG = 1, BCASCREG = 1, MREG = 1, PREG = 1, OPMODEREG = 1,
    parameter ADREG = 1, ALUMODEREG = 1, CARRYINREG = 1, CARRYINSELREG = 1, CREG = 1, DREG = 1, INMODEREG = 1,
    parameter USE_DPORT = "FALSE"
) (
    input  CLK,
    input  [29:0] A,
    input  [17:0] B,
    input  [47:0] C,
    input  [24:0] D,
    input  [6:0] OPMODE,
    input  [3:0] ALUMODE,
    input  [4:0] INMODE,
    input  [2:0] CARRYINSEL,
    input  CARRYIN,
    input  CEA1, CEA2, CEB1, CEB2, CEM, CEP, CECTRL, CEAD, CEALUMODE, CEC, CECARRYIN, CED, CEINMODE,
    input  RSTA, RSTALLCARRYIN, RSTALUMODE, RSTB, RSTC, RSTCTRL, RSTD, RSTINMODE, RSTM, RSTP,
    output reg [47:0] P
);
    localparam PREADD = USE_DPORT == "TRUE";
    reg signed [24:0] a, d, ad;
    reg signed [17:0] b_1, b;
    reg signed [42:0] m;
    reg [6:0] opmode;
    wire [6:0] operation = OPMODEREG ? opmode : OPMODE;
    wire signed [47:0] product = m;
    wire [47:0] x_and_y = operation[3:0] == 4'b0101 ? product : 48'b0;
    wire [47:0] z = operation[6:4] == 3'b010 ? P : 48'b0;
    always @(posedge CLK) begin
        if (CEA2) a <= A[24:0];
        if (CED) d <= D;
        if (CEAD) ad <= INMODE == 5'b01100 ? d - a : 25'bx;
        if (CEB1) b_1 <= B;
        if (CEB2) b <= BREG == 2 ? b_1 : B;
        if (CEM) m <= (PREADD ? ad : a) * b;
        if (CECTRL) opmode <= OPMODE;
        if (CEP) P <= x_and_y + z;
    end
endmodule
